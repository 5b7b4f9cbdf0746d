#include "gantry/spec/tensor_table.h"

#include <fmt/format.h>

#include <functional>
#include <numeric>

#include "gantry/base/check.h"

namespace gantry::spec {
namespace {

TensorSpec matrix(std::string name, std::int64_t out, std::int64_t in, TensorRole role, int layer, ShardRule shard,
                  int shard_axis, std::string gguf) {
  return {.name = std::move(name),
          .shape = {out, in},
          .role = role,
          .layer = layer,
          .shard = shard,
          .shard_axis = shard_axis,
          .weight_decay = true,
          .gguf_name = std::move(gguf)};
}

TensorSpec vector(std::string name, std::int64_t size, TensorRole role, int layer, std::string gguf,
                  ShardRule shard = ShardRule::kReplicate) {
  return {.name = std::move(name),
          .shape = {size},
          .role = role,
          .layer = layer,
          .shard = shard,
          .shard_axis = shard == ShardRule::kReplicate ? -1 : 0,
          .gguf_name = std::move(gguf)};
}

void add_llama_attention(std::vector<TensorSpec>& table, const ModelConfig& c, int i) {
  const auto name = [&](const char* rest) { return fmt::format("model.layers.{}.self_attn.{}", i, rest); };
  const auto gguf = [&](const char* rest) { return fmt::format("blk.{}.{}", i, rest); };
  const auto projection = [&](const char* hf, std::int64_t out, const char* gg, bool permuted) {
    table.push_back(matrix(name(hf), out, c.hidden_size, TensorRole::kAttention, i, ShardRule::kHeads, 0, gguf(gg)));
    if (permuted) table.back().gguf_transform = GgufTransform::kUnpermuteRope;
  };
  // Of the architectures read here only "llama" itself (Mistral included) is stored with permuted rows.
  const bool permuted = c.model_type != "qwen2";
  projection("q_proj.weight", c.q_size(), "attn_q.weight", permuted);
  projection("k_proj.weight", c.kv_size(), "attn_k.weight", permuted);
  projection("v_proj.weight", c.kv_size(), "attn_v.weight", false);
  if (c.qkv_bias) {
    const auto bias = [&](const char* hf, std::int64_t size, const char* gg, bool permute) {
      table.push_back(vector(name(hf), size, TensorRole::kAttention, i, gguf(gg), ShardRule::kHeads));
      if (permute) table.back().gguf_transform = GgufTransform::kUnpermuteRope;
    };
    bias("q_proj.bias", c.q_size(), "attn_q.bias", permuted);
    bias("k_proj.bias", c.kv_size(), "attn_k.bias", permuted);
    bias("v_proj.bias", c.kv_size(), "attn_v.bias", false);
  }
  table.push_back(matrix(name("o_proj.weight"), c.hidden_size, c.q_size(), TensorRole::kAttention, i, ShardRule::kHeads,
                         1, gguf("attn_output.weight")));
  if (c.output_bias) {
    table.push_back(vector(name("o_proj.bias"), c.hidden_size, TensorRole::kAttention, i, gguf("attn_output.bias")));
  }
}

void add_llama_mlp(std::vector<TensorSpec>& table, const ModelConfig& c, int i) {
  const auto add = [&](const char* part, const char* gg, std::int64_t out, std::int64_t in, int axis) {
    table.push_back(matrix(fmt::format("model.layers.{}.mlp.{}_proj.weight", i, part), out, in, TensorRole::kMlp, i,
                           ShardRule::kSplit, axis, fmt::format("blk.{}.{}.weight", i, gg)));
  };
  const auto add_bias = [&](const char* part, const char* gg, std::int64_t size, ShardRule shard) {
    if (!c.mlp_bias) return;
    table.push_back(vector(fmt::format("model.layers.{}.mlp.{}_proj.bias", i, part), size, TensorRole::kMlp, i,
                           fmt::format("blk.{}.{}.bias", i, gg), shard));
  };
  add("gate", "ffn_gate", c.intermediate_size, c.hidden_size, 0);
  add("up", "ffn_up", c.intermediate_size, c.hidden_size, 0);
  add_bias("gate", "ffn_gate", c.intermediate_size, ShardRule::kSplit);
  add_bias("up", "ffn_up", c.intermediate_size, ShardRule::kSplit);
  add("down", "ffn_down", c.hidden_size, c.intermediate_size, 1);
  add_bias("down", "ffn_down", c.hidden_size, ShardRule::kReplicate);
}

std::vector<TensorSpec> llama_table(const ModelConfig& c) {
  std::vector<TensorSpec> table;
  table.push_back(matrix("model.embed_tokens.weight", c.vocab_size, c.hidden_size, TensorRole::kEmbedding, -1,
                         ShardRule::kSplit, 0, "token_embd.weight"));
  for (int i = 0; i < c.num_layers; ++i) {
    const auto norm = [&](const char* hf, const char* gg) {
      table.push_back(vector(fmt::format("model.layers.{}.{}.weight", i, hf), c.hidden_size, TensorRole::kNorm, i,
                             fmt::format("blk.{}.{}.weight", i, gg)));
    };
    norm("input_layernorm", "attn_norm");
    add_llama_attention(table, c, i);
    norm("post_attention_layernorm", "ffn_norm");
    add_llama_mlp(table, c, i);
  }
  table.push_back(vector("model.norm.weight", c.hidden_size, TensorRole::kNorm, -1, "output_norm.weight"));
  if (!c.tied_embeddings) {
    table.push_back(matrix("lm_head.weight", c.vocab_size, c.hidden_size, TensorRole::kHead, -1, ShardRule::kSplit, 0,
                           "output.weight"));
  }
  return table;
}

// GPT-2 stores its projections [in, out].
TensorSpec conv1d(std::string name, std::int64_t in, std::int64_t out, TensorRole role, int layer, ShardRule shard,
                  int shard_axis, std::string gguf) {
  TensorSpec spec = matrix(std::move(name), in, out, role, layer, shard, shard_axis, std::move(gguf));
  spec.in_out = true;
  spec.gguf_transform = GgufTransform::kTranspose;
  return spec;
}

std::vector<TensorSpec> gpt2_table(const ModelConfig& c) {
  const std::int64_t h = c.hidden_size;
  std::vector<TensorSpec> table;
  table.push_back(matrix("transformer.wte.weight", c.vocab_size, h, TensorRole::kEmbedding, -1, ShardRule::kSplit, 0,
                         "token_embd.weight"));
  table.push_back(matrix("transformer.wpe.weight", c.max_positions, h, TensorRole::kPosition, -1, ShardRule::kReplicate,
                         -1, "position_embd.weight"));
  const auto add_norm = [&](const std::string& hf, const std::string& gg, int layer) {
    table.push_back(vector(hf + ".weight", h, TensorRole::kNorm, layer, gg + ".weight"));
    table.push_back(vector(hf + ".bias", h, TensorRole::kNorm, layer, gg + ".bias"));
  };
  for (int i = 0; i < c.num_layers; ++i) {
    const auto hf = [&](const char* rest) { return fmt::format("transformer.h.{}.{}", i, rest); };
    const auto gg = [&](const char* rest) { return fmt::format("blk.{}.{}", i, rest); };
    const auto add = [&](const char* name, const char* gguf, std::int64_t in, std::int64_t out, TensorRole role,
                         ShardRule shard, int axis) {
      table.push_back(conv1d(hf(name) + ".weight", in, out, role, i, shard, axis, gg(gguf) + ".weight"));
      table.push_back(
          vector(hf(name) + ".bias", out, role, i, gg(gguf) + ".bias", axis == 1 ? shard : ShardRule::kReplicate));
    };
    add_norm(hf("ln_1"), gg("attn_norm"), i);
    add("attn.c_attn", "attn_qkv", h, 3 * h, TensorRole::kAttention, ShardRule::kFusedQkv, 1);
    add("attn.c_proj", "attn_output", h, h, TensorRole::kAttention, ShardRule::kHeads, 0);
    add_norm(hf("ln_2"), gg("ffn_norm"), i);
    add("mlp.c_fc", "ffn_up", h, c.intermediate_size, TensorRole::kMlp, ShardRule::kSplit, 1);
    add("mlp.c_proj", "ffn_down", c.intermediate_size, h, TensorRole::kMlp, ShardRule::kSplit, 0);
  }
  add_norm("transformer.ln_f", "output_norm", -1);
  if (!c.tied_embeddings) {
    table.push_back(
        matrix("lm_head.weight", c.vocab_size, h, TensorRole::kHead, -1, ShardRule::kSplit, 0, "output.weight"));
  }
  return table;
}

class BertTable {
 public:
  explicit BertTable(const ModelConfig& config) : c_(config), prefix_(config.model_type + ".") {}

  std::vector<TensorSpec> build() {
    const std::int64_t h = c_.hidden_size;
    const std::string embeddings = prefix_ + "embeddings.";
    table_.push_back(matrix(embeddings + "word_embeddings.weight", c_.vocab_size, h, TensorRole::kEmbedding, -1,
                            ShardRule::kSplit, 0, "token_embd.weight"));
    table_.push_back(matrix(embeddings + "position_embeddings.weight", c_.max_positions, h, TensorRole::kPosition, -1,
                            ShardRule::kReplicate, -1, "position_embd.weight"));
    table_.push_back(matrix(embeddings + "token_type_embeddings.weight", c_.type_vocab_size, h, TensorRole::kPosition,
                            -1, ShardRule::kReplicate, -1, "token_types.weight"));
    norm(embeddings + "LayerNorm", "token_embd_norm", -1);
    for (int i = 0; i < c_.num_layers; ++i) add_layer(i);
    add_head();
    return std::move(table_);
  }

 private:
  void norm(const std::string& hf, const std::string& gguf, int layer) {
    table_.push_back(vector(hf + ".weight", c_.hidden_size, TensorRole::kNorm, layer, gguf + ".weight"));
    table_.push_back(vector(hf + ".bias", c_.hidden_size, TensorRole::kNorm, layer, gguf + ".bias"));
  }

  void linear(const std::string& hf, const std::string& gguf, std::int64_t out, std::int64_t in, TensorRole role,
              int layer, ShardRule shard, int axis) {
    table_.push_back(matrix(hf + ".weight", out, in, role, layer, shard, axis, gguf.empty() ? "" : gguf + ".weight"));
    table_.push_back(vector(hf + ".bias", out, role, layer, gguf.empty() ? "" : gguf + ".bias",
                            axis == 0 ? shard : ShardRule::kReplicate));
  }

  void add_layer(int i) {
    const std::int64_t h = c_.hidden_size;
    const auto hf = [&](const char* rest) { return fmt::format("{}encoder.layer.{}.{}", prefix_, i, rest); };
    const auto gg = [&](const char* rest) { return fmt::format("blk.{}.{}", i, rest); };
    linear(hf("attention.self.query"), gg("attn_q"), h, h, TensorRole::kAttention, i, ShardRule::kHeads, 0);
    linear(hf("attention.self.key"), gg("attn_k"), h, h, TensorRole::kAttention, i, ShardRule::kHeads, 0);
    linear(hf("attention.self.value"), gg("attn_v"), h, h, TensorRole::kAttention, i, ShardRule::kHeads, 0);
    linear(hf("attention.output.dense"), gg("attn_output"), h, h, TensorRole::kAttention, i, ShardRule::kHeads, 1);
    norm(hf("attention.output.LayerNorm"), gg("attn_output_norm"), i);
    linear(hf("intermediate.dense"), gg("ffn_up"), c_.intermediate_size, h, TensorRole::kMlp, i, ShardRule::kSplit, 0);
    linear(hf("output.dense"), gg("ffn_down"), h, c_.intermediate_size, TensorRole::kMlp, i, ShardRule::kSplit, 1);
    norm(hf("output.LayerNorm"), gg("layer_output_norm"), i);
  }

  void add_head() {
    const bool roberta = c_.model_type == "roberta";
    const std::string head = roberta ? "lm_head." : "cls.predictions.";
    const std::string transform = roberta ? head : head + "transform.";
    linear(transform + "dense", "", c_.hidden_size, c_.hidden_size, TensorRole::kHead, -1, ShardRule::kReplicate, -1);
    norm(roberta ? head + "layer_norm" : transform + "LayerNorm", "", -1);
    table_[table_.size() - 2].gguf_name = table_.back().gguf_name = "";
    table_.push_back(vector(head + "bias", c_.vocab_size, TensorRole::kHead, -1, "", ShardRule::kSplit));
    if (!c_.tied_embeddings) {
      table_.push_back(matrix(head + "decoder.weight", c_.vocab_size, c_.hidden_size, TensorRole::kHead, -1,
                              ShardRule::kSplit, 0, ""));
    }
  }

  const ModelConfig& c_;
  std::string prefix_;
  std::vector<TensorSpec> table_;
};

}  // namespace

std::int64_t TensorSpec::numel() const {
  return std::accumulate(shape.begin(), shape.end(), std::int64_t{1}, std::multiplies<>());
}

std::vector<TensorSpec> tensor_table(const ModelConfig& config) {
  switch (config.family) {
    case Family::kLlama: return llama_table(config);
    case Family::kGpt2: return gpt2_table(config);
    case Family::kBert: return BertTable(config).build();
  }
  GANTRY_UNREACHABLE();
}

std::int64_t parameter_count(const ModelConfig& config) {
  std::int64_t total = 0;
  for (const TensorSpec& tensor : tensor_table(config)) total += tensor.numel();
  return total;
}

bool is_ignorable_tensor(const ModelConfig& config, const std::string& name) {
  const auto ends_with = [&](std::string_view tail) { return name.ends_with(tail); };
  if (name == "rope_freqs.weight") return true;  // GGUF; config_from_gguf() has read it
  if (ends_with("rotary_emb.inv_freq") || ends_with("embeddings.position_ids")) return true;
  switch (config.family) {
    case Family::kLlama: return config.tied_embeddings && name == "lm_head.weight";
    case Family::kGpt2:
      return ends_with(".attn.bias") || ends_with(".attn.masked_bias") ||
             (config.tied_embeddings && name == "lm_head.weight");
    case Family::kBert:
      return ends_with("decoder.bias") || name.find("pooler.") != std::string::npos ||
             name.starts_with("cls.seq_relationship.") || (config.tied_embeddings && ends_with("decoder.weight"));
  }
  GANTRY_UNREACHABLE();
}

std::string_view role_name(TensorRole role) {
  switch (role) {
    case TensorRole::kEmbedding: return "embedding";
    case TensorRole::kPosition: return "positions";
    case TensorRole::kAttention: return "attention";
    case TensorRole::kMlp: return "mlp";
    case TensorRole::kNorm: return "norms";
    case TensorRole::kHead: return "head";
  }
  GANTRY_UNREACHABLE();
}

}  // namespace gantry::spec
