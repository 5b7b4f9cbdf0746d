#include "gantry/text/sentencepiece.h"

#include <cmath>

#include "gantry/text/protobuf_reader.h"
#include "gantry/text/utf8.h"

namespace gantry::text {
namespace {

using Field = ProtobufReader::Field;

// Field numbers of sentencepiece_model.proto.
enum ModelField { kPieces = 1, kTrainerSpec = 2, kNormalizerSpec = 3 };
enum PieceField { kPieceText = 1, kPieceScore = 2, kPieceType = 3 };
enum TrainerField { kModelType = 3, kWhitespaceAsSuffix = 24, kByteFallback = 35, kUnkId = 40, kBosId, kEosId, kPadId };
enum NormalizerField { kCharsmap = 2, kAddDummyPrefix = 3, kRemoveExtraWhitespaces = 4, kEscapeWhitespaces = 5 };

SentencePiece parse_piece(std::string_view bytes, std::size_t index, const std::string& source) {
  SentencePiece piece;
  ProtobufReader reader(bytes, source);
  for (Field field; reader.next(field);) {
    if (field.number == kPieceText) piece.text = field.bytes;
    if (field.number == kPieceScore) piece.score = field.as_float();
    if (field.number == kPieceType) {
      GANTRY_CHECK(field.value >= 1 && field.value <= 6, "{}: piece {} has type {}, expected 1 to 6", source, index,
                   field.value);
      piece.type = static_cast<PieceType>(field.value);
    }
  }
  GANTRY_CHECK(is_valid_utf8(piece.text), "{}: piece {} is not valid UTF-8", source, index);
  GANTRY_CHECK(std::isfinite(piece.score), "{}: the score of piece {} ('{}') is not finite", source, index, piece.text);
  return piece;
}

void parse_trainer(std::string_view bytes, SentencePieceModel& model) {
  ProtobufReader reader(bytes, model.source);
  for (Field field; reader.next(field);) {
    switch (field.number) {
      case kModelType:
        GANTRY_CHECK(field.value == 1 || field.value == 2,
                     "{}: SentencePiece model type {} is not supported; expected 1 (unigram) or 2 (BPE)", model.source,
                     field.value);
        model.algorithm = static_cast<SentencePieceModel::Algorithm>(field.value);
        break;
      case kWhitespaceAsSuffix:
        GANTRY_CHECK(!field.as_bool(), "{}: models with white space as suffix are not supported", model.source);
        break;
      case kByteFallback: model.byte_fallback = field.as_bool(); break;
      case kUnkId: model.unk_id = field.as_int(); break;
      case kBosId: model.bos_id = field.as_int(); break;
      case kEosId: model.eos_id = field.as_int(); break;
      case kPadId: model.pad_id = field.as_int(); break;
      default: break;
    }
  }
}

void parse_normalizer(std::string_view bytes, SentencePieceModel& model) {
  ProtobufReader reader(bytes, model.source);
  for (Field field; reader.next(field);) {
    if (field.number == kCharsmap) model.charsmap = field.bytes;
    if (field.number == kAddDummyPrefix) model.add_dummy_prefix = field.as_bool();
    if (field.number == kRemoveExtraWhitespaces) model.remove_extra_whitespaces = field.as_bool();
    GANTRY_CHECK(field.number != kEscapeWhitespaces || field.as_bool(),
                 "{}: models that do not escape white space are not supported", model.source);
  }
}

}  // namespace

SentencePieceModel parse_sentencepiece(std::string_view bytes, std::string source) {
  SentencePieceModel model;
  model.source = std::move(source);
  ProtobufReader reader(bytes, model.source);
  for (Field field; reader.next(field);) {
    if (field.number == kPieces) {
      model.pieces.push_back(parse_piece(field.bytes, model.pieces.size(), model.source));
    } else if (field.number == kTrainerSpec) {
      parse_trainer(field.bytes, model);
    } else if (field.number == kNormalizerSpec) {
      parse_normalizer(field.bytes, model);
    }
  }
  GANTRY_CHECK(!model.pieces.empty(), "{}: no pieces; expected a SentencePiece model", model.source);
  return model;
}

}  // namespace gantry::text
