#pragma once
// The model of a tokeniser: encodes one piece of text into ids of its vocabulary.
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "gantry/base/json.h"
#include "gantry/text/vocabulary.h"

namespace gantry::text {

class Model {
 public:
  virtual ~Model() = default;

  /// Appends the ids of `piece` (any bytes). Thread-safe.
  virtual void encode(std::string_view piece, std::vector<std::int32_t>& out) const = 0;
  /// The "model" value of a tokenizer.json.
  virtual base::OrderedJson to_json() const = 0;
  /// True when no token crosses from another character into U+2581, so that pieces may be cut there unnoticed.
  virtual bool may_cut_before_metaspace() const { return false; }
  virtual std::int32_t unk_id() const = 0;

  const Vocabulary& vocabulary() const { return vocabulary_; }

 protected:
  explicit Model(Vocabulary vocabulary) : vocabulary_(std::move(vocabulary)) {}
  /// {"token": id, ...} in order of ids.
  base::OrderedJson vocabulary_json() const;

  Vocabulary vocabulary_;
};

/// From the "model" value of a tokenizer.json. `spells_bytes`: the pre-tokeniser left the byte spelling to the model.
/// `frozen` lists ids that text must never produce (special tokens). Throws InputError naming `source`.
std::unique_ptr<Model> model_from_json(const base::Json& config, std::string_view source, bool spells_bytes,
                                       const std::vector<std::int32_t>& frozen);

/// True when some token holds U+2581 after another character.
bool crosses_metaspace(const Vocabulary& vocabulary);

/// Ids of the tokens "<0x00>" to "<0xFF>"; empty unless all are there.
std::vector<std::int32_t> byte_token_ids(const Vocabulary& vocabulary);

}  // namespace gantry::text
