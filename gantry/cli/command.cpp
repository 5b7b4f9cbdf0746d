#include "gantry/cli/command.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <new>

#include "gantry/base/check.h"
#include "gantry/base/interrupt.h"

namespace gantry::cli {

struct Command::Parser {
  std::unique_ptr<CLI::App> owned;
  CLI::App* app = nullptr;
  std::string config_path;
};

namespace {

std::string option_name(const std::string& field) {
  if (field == "output") return "-o,--output";  // the one short name, as compilers have it
  std::string name = "--" + field;
  std::replace(name.begin(), name.end(), '_', '-');
  return name;
}

}  // namespace

Command::Command(const std::string& name, const std::string& description) : parser_(std::make_unique<Parser>()) {
  parser_->owned = std::make_unique<CLI::App>(description, name);
  parser_->app = parser_->owned.get();
  parser_->app->require_subcommand(1);
  parser_->app->set_version_flag("--version", "gantry " GANTRY_VERSION);
}

Command::Command(std::unique_ptr<Parser> parser) : parser_(std::move(parser)) {}
Command::~Command() = default;

Command& Command::add_verb(const std::string& name, const std::string& description) {
  auto parser = std::make_unique<Parser>();
  parser->app = parser_->app->add_subcommand(name, description);
  verbs_.push_back(std::unique_ptr<Command>(new Command(std::move(parser))));
  return *verbs_.back();
}

void Command::positional(const std::string& name, std::string& value, const std::string& help, bool required) {
  auto* option = parser_->app->add_option(name, value, help);
  option->required(required);
}

void Command::positional(const std::string& name, std::vector<std::string>& values, const std::string& help) {
  parser_->app->add_option(name, values, help)->required();
}

void Command::group(const char* title) { group_ = title; }

void Command::operator()(const char* name, bool& value, const char* help) {
  // Fields that are true by default are switched off by --no-...
  std::string flag = option_name(name);
  if (value) flag = flag + ",!--no-" + flag.substr(2);
  parser_->app->add_flag(flag, value, help)->group(group_);
}

#define GANTRY_CLI_OPTION(type)                                                                     \
  void Command::operator()(const char* name, type& value, const char* help) {                       \
    parser_->app->add_option(option_name(name), value, help)->group(group_)->capture_default_str(); \
  }
GANTRY_CLI_OPTION(std::int64_t)
GANTRY_CLI_OPTION(double)
GANTRY_CLI_OPTION(std::string)
GANTRY_CLI_OPTION(std::optional<std::string>)
GANTRY_CLI_OPTION(std::optional<std::int64_t>)
GANTRY_CLI_OPTION(std::vector<std::string>)
#undef GANTRY_CLI_OPTION

void Command::operator()(const char* name, std::uint64_t& value, const char* help) {
  // The parser would wrap a negative number around.
  parser_->app->add_option(option_name(name), value, help)
      ->group(group_)
      ->capture_default_str()
      ->check([](const std::string& word) {
        return word.starts_with('-') ? "expected 0 or more, found " + word : std::string();
      });
}

void Command::operator()(const char* name, base::AutoCount& value, const char* help) {
  const std::string option = option_name(name);
  parser_->app
      ->add_option_function<std::string>(
          option, [&value, option](const std::string& word) { value = base::AutoCount::parse(word, option); }, help)
      ->group(group_)
      ->type_name("INT|auto")
      ->default_str(value.text());
}

void Command::on_run(std::function<int()> run) {
  run_ = std::move(run);
  if (!config_readers_.empty()) {
    parser_->app->add_option("--config", parser_->config_path, "JSON file of options; the command line wins")
        ->group("Options");
  }
}

void Command::read_config(const std::string& path) {
  const base::Json json = base::read_json_file(path);
  GANTRY_CHECK(json.is_object(), "{}: expected an object of options, found {}", path, json.type_name());
  std::set<std::string, std::less<>> known;
  for (const auto& reader : config_readers_) known.merge(reader(json, path));
  for (const auto& [key, value] : json.items()) {
    GANTRY_CHECK(known.count(key) == 1, "{}: unknown option '{}'; see --help for the names", path, key);
  }
}

int Command::dispatch(int argc, const char* const* argv) {
  // Files of options come first, so that the command line overrides them.
  for (int i = 2; i < argc; ++i) {
    const std::string_view word = argv[i];
    std::string path;
    if (word == "--config" && i + 1 < argc) path = argv[i + 1];
    if (word.starts_with("--config=")) path = word.substr(std::string_view("--config=").size());
    if (path.empty()) continue;
    for (const auto& verb : verbs_) {
      if (verb->parser_->app->get_name() == argv[1]) verb->read_config(path);
    }
  }
  if (argc > 1 && argv[1][0] != '-') {
    GANTRY_CHECK(std::any_of(verbs_.begin(), verbs_.end(),
                             [&](const auto& verb) { return verb->parser_->app->get_name() == argv[1]; }),
                 "there is no verb '{}'; `gantry --help` lists them", argv[1]);
  }
  try {
    parser_->app->parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return parser_->app->exit(error) == 0 ? 0 : 2;
  }
  for (const auto& verb : verbs_) {
    if (verb->parser_->app->parsed()) return verb->run_();
  }
  return 2;
}

int Command::run(int argc, const char* const* argv) {
  const auto report = [](const char* what) {
    // libtorch appends a C++ stack trace to its messages; people need the first line.
    const std::string_view text(what);
    const std::string_view message = text.substr(0, text.find("\nException raised from"));
    std::fprintf(stderr, "gantry: %.*s\n", static_cast<int>(message.size()), message.data());
  };
  try {
    return dispatch(argc, argv);
  } catch (const base::InputError& error) {
    report(error.what());
    return 2;
  } catch (const base::InfeasibleError& error) {
    report(error.what());
    return 3;
  } catch (const base::Interrupted& error) {
    report(error.what());
    return 130;
  } catch (const std::bad_alloc&) {
    report("out of memory; use a smaller model, batch or sequence length");
    return 1;
  } catch (const std::exception& error) {
    // What breaks when other ranks have left already is no failure.
    report(base::interrupted() ? "interrupted" : error.what());
    return base::interrupted() ? 130 : 1;
  }
}

}  // namespace gantry::cli
