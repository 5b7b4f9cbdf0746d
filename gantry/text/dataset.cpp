#include "gantry/text/dataset.h"

#include <algorithm>
#include <cmath>

#include "gantry/base/file.h"
#include "gantry/base/log.h"
#include "gantry/text/dataset_build.h"
#include "gantry/text/dataset_shard.h"
#include "gantry/text/tokenizer.h"

namespace gantry::text {

struct TokenDataset::State {
  std::vector<TokenShard> shards;
  std::vector<std::uint64_t> first_token;     // of each shard, and the total
  std::vector<std::uint64_t> first_document;  // of each shard, and the total
  std::uint64_t identity = 0;
  std::int32_t pad_id = 0;
  bool from_cache = false;
  bool masked = false;

  std::size_t shard_of_token(std::uint64_t token) const {
    return static_cast<std::size_t>(std::upper_bound(first_token.begin(), first_token.end(), token) -
                                    first_token.begin()) -
           1;
  }
};

namespace {

/// Opens every shard of a manifest and checks that they fit it; throws InputError otherwise.
std::vector<TokenShard> open_shards(const std::filesystem::path& cache_dir, const DatasetManifest& manifest,
                                    ShardView::Verify verify) {
  std::vector<TokenShard> shards;
  std::uint64_t tokens = 0;
  std::uint64_t documents = 0;
  for (std::uint64_t i = 0; i < manifest.shards; ++i) {
    const auto path = shard_path(cache_dir, manifest.identity, i);
    shards.emplace_back(path, verify);
    const ShardView& view = shards.back().view();
    GANTRY_CHECK(view.identity() == manifest.identity, "{}: belongs to another data set", path.string());
    tokens += view.token_count();
    documents += view.document_count();
  }
  GANTRY_CHECK(tokens == manifest.tokens && documents == manifest.documents && tokens > 0,
               "{}: the shards hold {} tokens in {} documents, the manifest says {} in {}",
               manifest_path(cache_dir, manifest.identity).string(), tokens, documents, manifest.tokens,
               manifest.documents);
  return shards;
}

}  // namespace

void check_dataset_options(const DatasetOptions& options) {
  GANTRY_CHECK(options.sequence_length >= 1 && options.sequence_length <= (1 << 24),
               "sequence_length must be between 1 and 16777216, found {}", options.sequence_length);
  GANTRY_CHECK(options.validation_fraction >= 0 && options.validation_fraction <= 0.9,
               "validation_fraction must be between 0 and 0.9, found {}", options.validation_fraction);
  GANTRY_CHECK(!options.text_field.empty(), "text_field is empty; name the member that holds the text");
}

TokenDataset TokenDataset::build(const std::vector<std::string>& sources, const Tokenizer& tokenizer,
                                 const std::filesystem::path& cache_dir, const DatasetOptions& options,
                                 const ProgressCallback& progress) {
  check_dataset_options(options);
  const auto files = find_sources(sources);
  auto state = std::make_unique<State>();
  state->identity = dataset_identity(files, tokenizer, options);
  state->pad_id = tokenizer.pad_id().value_or(tokenizer.eos_id().value_or(0));
  std::error_code ignored;
  if (std::filesystem::exists(manifest_path(cache_dir, state->identity), ignored)) {
    const auto verify = options.verify_cache ? ShardView::Verify::kAll : ShardView::Verify::kHeader;
    try {
      state->shards = open_shards(cache_dir, read_manifest(cache_dir, state->identity), verify);
      state->from_cache = true;
    } catch (const base::InputError& error) {
      base::log_warn("the cached tokens are damaged and made anew: {}", error.what());
    }
  }
  if (!state->from_cache) {
    base::make_directories(cache_dir);
    const auto manifest = tokenize_sources(files, tokenizer, cache_dir, state->identity, options, progress);
    state->shards = open_shards(cache_dir, manifest, ShardView::Verify::kHeader);
  }
  std::uint64_t tokens = 0;
  std::uint64_t documents = 0;
  for (const TokenShard& shard : state->shards) {
    state->first_token.push_back(tokens);
    state->first_document.push_back(documents);
    tokens += shard.view().token_count();
    documents += shard.view().document_count();
    state->masked |= shard.view().masked();
  }
  state->first_token.push_back(tokens);
  state->first_document.push_back(documents);
  return TokenDataset(std::move(state));
}

TokenDataset::TokenDataset(std::unique_ptr<State> state) : state_(std::move(state)) {}
TokenDataset::~TokenDataset() = default;
TokenDataset::TokenDataset(TokenDataset&&) noexcept = default;
TokenDataset& TokenDataset::operator=(TokenDataset&&) noexcept = default;

std::uint64_t TokenDataset::token_count() const { return state_->first_token.back(); }
std::uint64_t TokenDataset::document_count() const { return state_->first_document.back(); }
bool TokenDataset::masked() const { return state_->masked; }
std::uint64_t TokenDataset::identity() const { return state_->identity; }
bool TokenDataset::from_cache() const { return state_->from_cache; }
std::int32_t TokenDataset::pad_id() const { return state_->pad_id; }

std::uint64_t TokenDataset::document_start(std::uint64_t document) const {
  GANTRY_CHECK(document <= document_count(), "document {} of {}", document, document_count());
  if (document == document_count()) return token_count();
  const auto& first = state_->first_document;
  const auto shard =
      static_cast<std::size_t>(std::upper_bound(first.begin(), first.end(), document) - first.begin()) - 1;
  return state_->first_token[shard] + state_->shards[shard].view().document_start(document - first[shard]);
}

std::uint64_t TokenDataset::document_of(std::uint64_t token) const {
  GANTRY_CHECK(token < token_count(), "token {} of {}", token, token_count());
  const std::size_t shard = state_->shard_of_token(token);
  const ShardView& view = state_->shards[shard].view();
  const std::uint64_t local = token - state_->first_token[shard];
  std::uint64_t low = 0;  // the last document that starts at or before `local`
  std::uint64_t high = view.document_count();
  while (high - low > 1) {
    const std::uint64_t middle = low + (high - low) / 2;
    (view.document_start(middle) <= local ? low : high) = middle;
  }
  return state_->first_document[shard] + low;
}

void TokenDataset::copy_tokens(std::uint64_t begin, std::span<std::int32_t> out) const {
  GANTRY_CHECK(begin <= token_count() && out.size() <= token_count() - begin, "tokens {} to {} of {}", begin,
               begin + out.size(), token_count());
  while (!out.empty()) {
    const std::size_t shard = state_->shard_of_token(begin);
    const std::uint64_t local = begin - state_->first_token[shard];
    const ShardView& view = state_->shards[shard].view();
    const auto count = static_cast<std::size_t>(std::min<std::uint64_t>(out.size(), view.token_count() - local));
    view.copy_tokens(local, out.first(count));
    out = out.subspan(count);
    begin += count;
  }
}

bool TokenDataset::trained(std::uint64_t token) const {
  GANTRY_CHECK(token < token_count(), "token {} of {}", token, token_count());
  const std::size_t shard = state_->shard_of_token(token);
  return state_->shards[shard].view().trained(token - state_->first_token[shard]);
}

TokenRange TokenDataset::range(Split split, const DatasetOptions& options) const {
  check_dataset_options(options);
  const std::uint64_t tokens = token_count();
  const auto wanted =
      static_cast<std::uint64_t>(std::llround(static_cast<double>(tokens) * options.validation_fraction));
  std::uint64_t cut = tokens - std::min(wanted, tokens);
  std::uint64_t document = document_count();
  if (wanted != 0) {
    document = cut == 0 ? 0 : document_of(cut - 1) + 1;  // the first that starts at or after the cut
    const std::uint64_t start = document_start(document);
    if (tokens - start >= (wanted + 1) / 2 || !options.pack) {
      if (start == tokens) --document;
      cut = document_start(document);
    }
  }
  TokenRange range;
  if (split == Split::kTrain) {
    range = {0, cut, 0, document};
    GANTRY_CHECK(range.tokens() > 0,
                 "nothing is left to train on: the data are one document or validation_fraction {} "
                 "takes all; give more data or a smaller fraction",
                 options.validation_fraction);
  } else {
    GANTRY_CHECK(cut < tokens,
                 "no tokens are held out: validation_fraction is {} of {} tokens in all; give more data or a larger "
                 "fraction",
                 options.validation_fraction, tokens);
    range = {cut, tokens, document_of(cut), document_count()};
  }
  return range;
}

}  // namespace gantry::text
