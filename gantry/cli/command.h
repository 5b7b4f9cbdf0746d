#pragma once
// A verb's command line, made from the visit of its option structs (base/options.h). Only command.cpp sees the parser
// library, so that a verb compiles fast.
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "gantry/base/auto_count.h"
#include "gantry/base/options.h"

namespace gantry::cli {

class Command {
 public:
  /// The program itself.
  Command(const std::string& name, const std::string& description);
  ~Command();
  Command(const Command&) = delete;
  Command& operator=(const Command&) = delete;

  /// A verb. The reference lives as long as this object.
  Command& add_verb(const std::string& name, const std::string& description);

  /// Words without a dash, in the order added.
  void positional(const std::string& name, std::string& value, const std::string& help, bool required = true);
  void positional(const std::string& name, std::vector<std::string>& values, const std::string& help);

  /// Every field of an option struct becomes --name-with-dashes; a --config file may set it too (its key is the field's
  /// name). The struct must outlive parse().
  template <class Options>
  void options(Options& fields) {
    fields.visit_fields(*this);
    config_readers_.push_back([&fields](const base::Json& json, std::string_view source) {
      // Several structs share one file, so a name unknown to this one is no error yet.
      base::internal::OptionReader reader{json, source, {}};
      fields.visit_fields(reader);
      return std::move(reader.known);
    });
  }

  /// A single flag or option outside any struct.
  void flag(const std::string& name, bool& value, const std::string& help) {
    (*this)(name.c_str(), value, help.c_str());
  }

  // The visitor of visit_fields.
  void group(const char* title);
  void operator()(const char* name, bool& value, const char* help);
  void operator()(const char* name, std::int64_t& value, const char* help);
  void operator()(const char* name, std::uint64_t& value, const char* help);
  void operator()(const char* name, double& value, const char* help);
  void operator()(const char* name, std::string& value, const char* help);
  void operator()(const char* name, std::optional<std::string>& value, const char* help);
  void operator()(const char* name, std::optional<std::int64_t>& value, const char* help);
  void operator()(const char* name, std::vector<std::string>& value, const char* help);
  void operator()(const char* name, base::AutoCount& value, const char* help);

  /// What the verb does; its return value is the exit code.
  void on_run(std::function<int()> run);

  /// Parses and runs. Exit codes: 0 done, 1 failed while running, 2 wrong usage or bad input, 3 infeasible, 130
  /// interrupted.
  int run(int argc, const char* const* argv);

 private:
  struct Parser;
  explicit Command(std::unique_ptr<Parser> parser);
  void read_config(const std::string& path);
  int dispatch(int argc, const char* const* argv);

  std::unique_ptr<Parser> parser_;
  std::vector<std::unique_ptr<Command>> verbs_;
  std::vector<std::function<std::set<std::string, std::less<>>(const base::Json&, std::string_view)>> config_readers_;
  std::function<int()> run_;
  std::string group_ = "Options";
};

}  // namespace gantry::cli
