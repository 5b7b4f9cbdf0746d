#include "gantry/text/tokenizer.h"

#include <algorithm>

#include "gantry/base/check.h"
#include "gantry/base/threads.h"
#include "gantry/text/tokenizer_state.h"
#include "gantry/text/utf8.h"

namespace gantry::text {
namespace {

// Texts from this size on are encoded by several threads.
constexpr std::size_t kParallelBytes = std::size_t{1} << 20;
constexpr std::int64_t kPiecesPerBlock = 1 << 15;

}  // namespace

Tokenizer::State::State(TokenizerParts given)
    : parts(std::move(given)),
      normalizer(parts.normalizer, parts.source),
      pre_tokenizer(parts.pre_tokenizer, parts.source, parts.spells_bytes),
      added(parts.added_tokens, normalizer, parts.source),
      decoder(parts.decoder, parts.source),
      frame(special_frame(parts.post_processor, parts.source)) {
  GANTRY_CHECK(parts.spells_bytes == pre_tokenizer.spells_bytes(),
               "{}: the model spells bytes itself but the pre-tokeniser does not end in ByteLevel", parts.source);
  const Vocabulary& vocabulary = parts.model->vocabulary();
  size = vocabulary.size();
  const std::int64_t largest = std::int64_t{size} * 2 + 65536;
  for (const AddedToken& token : parts.added_tokens) {
    GANTRY_CHECK(token.id >= 0 && token.id <= largest, "{}: the added token '{}' has id {}, expected 0 to {}",
                 parts.source, token.content, token.id, largest);
    size = std::max(size, token.id + 1);
  }
  const auto check = [&](std::int32_t id, const char* what) {
    GANTRY_CHECK(id >= 0 && id < size, "{}: the {} id is {}, the vocabulary has {} tokens", parts.source, what, id,
                 size);
  };
  if (parts.bos_id) check(*parts.bos_id, "BOS");
  if (parts.eos_id) check(*parts.eos_id, "EOS");
  if (parts.pad_id) check(*parts.pad_id, "padding");
  if (parts.unk_id) check(*parts.unk_id, "unknown-token");
  if (!parts.unk_id && parts.model->unk_id() >= 0) parts.unk_id = parts.model->unk_id();
  for (const std::int32_t id : frame.prefix) check(id, "post-processor's");
  for (const std::int32_t id : frame.suffix) check(id, "post-processor's");
  if (parts.eos_id) stop_ids.push_back(*parts.eos_id);
  for (const std::int32_t id : parts.stop_ids) {
    check(id, "end-of-generation");
    if (std::find(stop_ids.begin(), stop_ids.end(), id) == stop_ids.end()) stop_ids.push_back(id);
  }
}

void Tokenizer::State::check_id(std::int32_t id) const {
  GANTRY_CHECK(id >= 0 && id < size, "token id {} is outside the vocabulary of {} tokens", id, size);
}

std::string_view Tokenizer::State::spelling(std::int32_t id) const {
  if (const AddedToken* token = added.find(id)) return token->content;
  const Vocabulary& vocabulary = parts.model->vocabulary();
  return id < vocabulary.size() ? vocabulary.text(id) : std::string_view();
}

void Tokenizer::State::encode_pieces(Pieces& pieces, bool escaped, std::vector<std::int32_t>& out) const {
  const auto encode_range = [&](std::int64_t begin, std::int64_t end, std::vector<std::int32_t>& ids) {
    for (std::int64_t i = begin; i < end; ++i) {
      const std::string_view piece = pieces.view(pieces.ranges[static_cast<std::size_t>(i)]);
      if (escaped)
        parts.model->encode(unescape_bytes(piece), ids);
      else
        parts.model->encode(piece, ids);
    }
  };
  const auto count = static_cast<std::int64_t>(pieces.ranges.size());
  if (pieces.text.size() < kParallelBytes || count <= kPiecesPerBlock) return encode_range(0, count, out);
  const std::int64_t blocks = (count + kPiecesPerBlock - 1) / kPiecesPerBlock;
  std::vector<std::vector<std::int32_t>> ids(static_cast<std::size_t>(blocks));
  base::parallel_ranges(blocks, 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t block = begin; block < end; ++block) {
      encode_range(block * kPiecesPerBlock, std::min(count, (block + 1) * kPiecesPerBlock),
                   ids[static_cast<std::size_t>(block)]);
    }
  });
  for (const auto& part : ids) out.insert(out.end(), part.begin(), part.end());
}

void Tokenizer::State::encode_section(std::string_view text, bool at_start, bool escaped, bool parse_special,
                                      std::vector<std::int32_t>& out) const {
  const std::string normal = normalizer.apply(std::string(text));
  const auto encode_text = [&](std::string_view section, std::size_t begin) {
    Pieces pieces(std::string(section), at_start && begin == 0);
    pre_tokenizer.apply(pieces);
    if (parts.model->may_cut_before_metaspace()) split_before_metaspace(pieces);
    encode_pieces(pieces, escaped, out);
  };
  if (!added.any_normalized()) return encode_text(normal, 0);
  added.split(normal, true, parse_special, encode_text, [&](std::int32_t id) { out.push_back(id); });
}

void Tokenizer::State::append_decoded(std::int32_t id, bool skip_special, Decoder::State& state,
                                      std::string& out) const {
  check_id(id);
  const AddedToken* token = added.find(id);
  if (token != nullptr && token->special && skip_special) return;
  decoder.append(spelling(id), token != nullptr, state, out);
}

Tokenizer::Tokenizer(TokenizerParts parts) : state_(std::make_unique<State>(std::move(parts))) {}
Tokenizer::~Tokenizer() = default;

std::vector<std::int32_t> Tokenizer::encode(std::string_view text, const EncodeOptions& options) const {
  std::vector<std::int32_t> out;
  out.reserve(text.size() / 4 + 4);
  if (options.add_special) out = state_->frame.prefix;
  std::string repaired;
  const bool escaped = needs_escape(text);
  if (escaped) {
    repaired = escape_invalid_utf8(text);
    text = repaired;
  }
  state_->added.split(
      text, false, options.parse_special,
      [&](std::string_view section, std::size_t begin) {
        state_->encode_section(section, begin == 0, escaped, options.parse_special, out);
      },
      [&](std::int32_t id) { out.push_back(id); });
  if (options.add_special) out.insert(out.end(), state_->frame.suffix.begin(), state_->frame.suffix.end());
  return out;
}

std::string Tokenizer::decode_bytes(std::span<const std::int32_t> ids, bool skip_special) const {
  std::string out;
  Decoder::State state;
  for (const std::int32_t id : ids) state_->append_decoded(id, skip_special, state, out);
  state_->decoder.finish(state, out);
  return out;
}

std::string Tokenizer::decode(std::span<const std::int32_t> ids, bool skip_special) const {
  std::string bytes = decode_bytes(ids, skip_special);
  return is_valid_utf8(bytes) ? bytes : replace_invalid_utf8(bytes);
}

std::string Tokenizer::token_bytes(std::int32_t id) const {
  state_->check_id(id);
  return state_->decoder.token_bytes(state_->spelling(id), state_->added.find(id) != nullptr);
}

std::string_view Tokenizer::token_text(std::int32_t id) const {
  state_->check_id(id);
  return state_->spelling(id);
}

std::optional<std::int32_t> Tokenizer::id_of(std::string_view token) const {
  std::int32_t id = state_->added.id_of(token);
  if (id < 0) id = state_->parts.model->vocabulary().find(token);
  return id < 0 ? std::nullopt : std::optional(id);
}

std::int32_t Tokenizer::vocab_size() const { return state_->size; }

bool Tokenizer::is_special(std::int32_t id) const {
  const AddedToken* token = state_->added.find(id);
  return token != nullptr && token->special;
}

std::optional<std::int32_t> Tokenizer::bos_id() const { return state_->parts.bos_id; }
std::optional<std::int32_t> Tokenizer::eos_id() const { return state_->parts.eos_id; }
std::optional<std::int32_t> Tokenizer::pad_id() const { return state_->parts.pad_id; }
std::optional<std::int32_t> Tokenizer::unk_id() const { return state_->parts.unk_id; }
const std::vector<std::int32_t>& Tokenizer::stop_ids() const { return state_->stop_ids; }
std::span<const std::int32_t> Tokenizer::prefix_ids() const { return state_->frame.prefix; }
std::span<const std::int32_t> Tokenizer::suffix_ids() const { return state_->frame.suffix; }
const std::string& Tokenizer::chat_template() const { return state_->parts.chat_template; }
const TokenizerParts& Tokenizer::parts() const { return state_->parts; }

}  // namespace gantry::text
