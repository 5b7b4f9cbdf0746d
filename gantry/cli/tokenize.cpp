// gantry tokenize MODEL: JSON strings in, arrays of ids out, a line each; --decode the other way.
#include <iostream>

#include "gantry/cli/verbs.h"
#include "gantry/text/tokenizer.h"

namespace gantry::cli {
namespace {

struct TokenizeOptions {
  bool decode = false;
  bool add_special = false;
  bool plain = false;
  bool skip_special = false;

  template <class Visitor>
  void visit_fields(Visitor& visit) {
    visit("decode", decode, "read arrays of ids, print JSON strings");
    visit("add_special", add_special, "add the model's start and end tokens");
    visit("plain", plain, "don't recognise special tokens written in the text");
    visit("skip_special", skip_special, "leave special tokens out when decoding");
  }
};

base::Json convert_line(const text::Tokenizer& tokenizer, const TokenizeOptions& options, const base::Json& line,
                        const std::string& source) {
  if (options.decode) {
    GANTRY_CHECK(line.is_array(), "{}: expected an array of ids, found {}", source, line.type_name());
    std::vector<std::int32_t> ids;
    for (const auto& id : line) {
      GANTRY_CHECK(id.is_number_integer() && id >= 0 && id < tokenizer.vocab_size(),
                   "{}: {} is not an id of this vocabulary of {}", source, id.dump(), tokenizer.vocab_size());
      ids.push_back(id.get<std::int32_t>());
    }
    return tokenizer.decode(ids, options.skip_special);
  }
  GANTRY_CHECK(line.is_string(), "{}: expected a JSON string, found {}", source, line.type_name());
  return tokenizer.encode(line.get<std::string>(),
                          {.add_special = options.add_special, .parse_special = !options.plain});
}

}  // namespace

void add_tokenize(Command& program) {
  Command& verb = program.add_verb("tokenize", "JSON strings on standard input to token ids, and back with --decode");
  struct State {
    std::string model;
    TokenizeOptions options;
  };
  auto state = std::make_shared<State>();
  verb.positional("MODEL", state->model, "model folder, .gguf or tokenizer file");
  verb.options(state->options);
  verb.on_run([state] {
    const auto tokenizer = text::load_tokenizer(state->model);
    std::size_t number = 0;
    for (std::string line; std::getline(std::cin, line);) {
      ++number;
      if (line.empty()) continue;
      const std::string source = "standard input, line " + std::to_string(number);
      std::cout << convert_line(*tokenizer, state->options, base::parse_json(line, source), source).dump() << "\n";
    }
    std::cout.flush();
    return 0;
  });
}

}  // namespace gantry::cli
