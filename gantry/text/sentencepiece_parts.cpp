// A SentencePiece model as a tokeniser pipeline.
#include <algorithm>

#include "gantry/text/bpe_model.h"
#include "gantry/text/charsmap.h"
#include "gantry/text/pipeline_constants.h"
#include "gantry/text/sentencepiece.h"
#include "gantry/text/unigram_model.h"

namespace gantry::text {
namespace {

using base::Json;

Json replace_step(const char* kind, std::string_view pattern, std::string_view content) {
  return {{"type", "Replace"}, {"pattern", {{kind, pattern}}}, {"content", content}};
}

Json normalizer_of(const SentencePieceModel& model, bool escape_spaces) {
  Json steps = Json::array();
  if (!model.charsmap.empty()) {
    steps.push_back({{"type", "Precompiled"}, {"precompiled_charsmap", encode_base64(model.charsmap)}});
  }
  if (model.remove_extra_whitespaces) {
    steps.push_back(replace_step("Regex", "\\A +| +\\z", ""));
    steps.push_back(replace_step("Regex", " {2,}", " "));
  }
  if (escape_spaces) {
    if (model.add_dummy_prefix) steps.push_back({{"type", "Prepend"}, {"prepend", kMetaspace}});
    steps.push_back(replace_step("String", " ", kMetaspace));
  }
  return steps.empty() ? Json() : Json{{"type", "Sequence"}, {"normalizers", steps}};
}

Json decoder_of(const SentencePieceModel& model) {
  Json steps = {replace_step("String", kMetaspace, " "), {{"type", "ByteFallback"}}, {{"type", "Fuse"}}};
  if (model.add_dummy_prefix) steps.push_back({{"type", "Strip"}, {"content", " "}, {"start", 1}, {"stop", 0}});
  return {{"type", "Sequence"}, {"decoders", steps}};
}

std::optional<std::int32_t> id_or_none(std::int32_t id, const SentencePieceModel& model, const char* what) {
  if (id < 0) return std::nullopt;
  GANTRY_CHECK(static_cast<std::size_t>(id) < model.pieces.size(), "{}: the {} id is {}, the model has {} pieces",
               model.source, what, id, model.pieces.size());
  return id;
}

std::vector<bool> pieces_of_type(const SentencePieceModel& model, std::initializer_list<PieceType> types) {
  std::vector<bool> chosen;
  for (const SentencePiece& piece : model.pieces) {
    chosen.push_back(std::find(types.begin(), types.end(), piece.type) != types.end());
  }
  return chosen;
}

std::unique_ptr<Model> model_of(const SentencePieceModel& model) {
  std::vector<std::string> texts;
  std::vector<float> scores;
  for (const SentencePiece& piece : model.pieces) {
    texts.push_back(piece.text);
    scores.push_back(piece.score);
  }
  Vocabulary vocabulary(texts, model.source);
  const bool has_unk = model.unk_id >= 0;
  if (model.algorithm == SentencePieceModel::Algorithm::kUnigram) {
    const auto used = pieces_of_type(model, {PieceType::kNormal, PieceType::kUserDefined});
    return std::make_unique<UnigramModel>(
        std::move(vocabulary), std::vector<double>(scores.begin(), scores.end()), used,
        UnigramOptions{has_unk ? model.unk_id : Vocabulary::kNone, model.byte_fallback, true}, model.source);
  }
  std::vector<std::uint32_t> ranks;
  auto merges =
      merges_from_scores(vocabulary, scores, pieces_of_type(model, {PieceType::kNormal}), ranks, model.source);
  BpeOptions options;
  if (has_unk) options.unk_token = texts[static_cast<std::size_t>(model.unk_id)];
  options.fuse_unk = true;
  options.byte_fallback = model.byte_fallback;
  return std::make_unique<BpeModel>(std::move(vocabulary), std::move(merges), std::move(options), model.source,
                                    std::move(ranks));
}

}  // namespace

TokenizerParts parts_from_sentencepiece(SentencePieceModel model, const SentencePieceFrame& frame) {
  TokenizerParts parts;
  parts.source = model.source;
  parts.unk_id = id_or_none(model.unk_id, model, "unknown-token");
  parts.bos_id = id_or_none(model.bos_id, model, "BOS");
  parts.eos_id = id_or_none(model.eos_id, model, "EOS");
  parts.pad_id = id_or_none(model.pad_id, model, "padding");
  if (parts.unk_id) model.pieces[static_cast<std::size_t>(model.unk_id)].type = PieceType::kUnknown;
  parts.model = model_of(model);
  parts.normalizer = normalizer_of(model, !frame.prefix_first_only);
  if (frame.prefix_first_only) {
    parts.pre_tokenizer = {{"type", "Metaspace"},
                           {"replacement", kMetaspace},
                           {"prepend_scheme", model.add_dummy_prefix ? "first" : "never"},
                           {"split", false}};
  }
  parts.decoder = decoder_of(model);
  for (std::size_t i = 0; i < model.pieces.size(); ++i) {
    const SentencePiece& piece = model.pieces[i];
    const bool special = piece.type == PieceType::kControl || piece.type == PieceType::kUnknown;
    if (piece.text.empty() || (!special && piece.type != PieceType::kUserDefined)) continue;
    parts.added_tokens.push_back({static_cast<std::int32_t>(i), piece.text, special});
  }
  std::vector<std::pair<std::string, std::int32_t>> prefix;
  std::vector<std::pair<std::string, std::int32_t>> suffix;
  const auto text = [&](std::int32_t id) { return model.pieces[static_cast<std::size_t>(id)].text; };
  if (frame.add_bos && parts.bos_id) prefix.emplace_back(text(*parts.bos_id), *parts.bos_id);
  if (frame.add_eos && parts.eos_id) suffix.emplace_back(text(*parts.eos_id), *parts.eos_id);
  parts.post_processor = template_processing(prefix, suffix);
  return parts;
}

}  // namespace gantry::text
