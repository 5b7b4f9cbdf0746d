// Flops and bytes of the operators of a profile.
#include <algorithm>

#include "gantry/base/check.h"
#include "gantry/cost/profile.h"
#include "gantry/cost/roofline.h"

namespace gantry::cost {
namespace {

constexpr double kFp32Bytes = 4;

/// `forward` and `backward` tensors of `elements` moved.
OperatorWork streams(double elements, double element_bytes, double forward, double backward) {
  return {{0, elements * element_bytes * forward}, {0, elements * element_bytes * backward}};
}

struct AttentionSizes {
  double queries = 0;  // elements of Q, and of the output
  double keys = 0;     // elements of K, and of V
  double scores = 0;
  double head_dim = 0;

  explicit AttentionSizes(const std::vector<double>& s)
      : queries(s[0] * s[1] * s[3] * s[4]),
        keys(s[0] * s[2] * s[3] * s[4]),
        scores(s[0] * s[1] * s[3] * s[3]),
        head_dim(s[4]) {}
};

OperatorWork flash_work(const std::vector<double>& s, double element_bytes) {
  const AttentionSizes a(s);
  const double kept = s[0] * s[1] * s[3] * (s[3] + 1) / 2;  // on and below the diagonal
  const double flops = kept * a.head_dim * 4;
  // The scores are computed again in backward: five products in place of two.
  return {{flops, element_bytes * (2 * a.queries + 2 * a.keys)},
          {flops * 2.5, element_bytes * (4 * a.queries + 4 * a.keys)}};
}

OperatorWork attention_work(std::string_view op, const std::vector<double>& s, double element_bytes) {
  const AttentionSizes a(s);
  if (op == "attention_flash") return flash_work(s, element_bytes);
  if (op == "attention_softmax") return streams(a.scores, element_bytes, 2, 3);
  if (op == "attention_dropout") {
    return {{0, a.scores * (2 * element_bytes + 1)}, {0, a.scores * (2 * element_bytes + 1)}};
  }
  if (op == "rope") return streams(a.queries + a.keys, element_bytes, 2, 2);
  if (op.starts_with("attention_transpose_")) return streams(a.queries, element_bytes, 2, 2);
  // attention_scores or attention_values: one product forward, two backward.
  const double flops = a.scores * a.head_dim * 2;
  const double bytes = element_bytes * (a.scores + a.queries + a.keys);
  return {{flops, bytes}, {flops * 2, bytes * 2}};
}

OperatorWork linear_work(double rows, double in, double out, double element_bytes) {
  const double flops = 2 * rows * in * out;
  const double tensors = rows * in + in * out + rows * out;
  return {{flops, element_bytes * tensors}, {flops * 2, element_bytes * 2 * tensors}};
}

OperatorWork rows_work(std::string_view op, const std::vector<double>& s, double element_bytes) {
  if (op == "mean") return streams(s[0], element_bytes, 1, 1);
  const double elements = s[0] * s[1];
  if (op == "norm") return streams(elements, element_bytes, 2, 3);
  if (op == "cast") return streams(elements, element_bytes, 2, 2);
  if (op == "embedding") {
    // Backward fills the table's gradient with zeros before it adds rows.
    const double table = element_bytes * s[1] * s[2];
    return {{0, elements * element_bytes * 2}, {0, table + elements * element_bytes * 3}};
  }
  // cross_entropy: widens, takes the logarithm and keeps it, all in fp32; backward writes the logits' gradient.
  return {{0, elements * (element_bytes + 3 * kFp32Bytes)}, {0, elements * (element_bytes + kFp32Bytes)}};
}

OperatorWork elements_work(std::string_view op, double elements, double element_bytes) {
  if (op == "activation") return streams(elements, element_bytes, 2, 3);
  if (op == "gated_activation") return streams(elements, element_bytes, 4, 6);
  if (op == "residual_add") return streams(elements, element_bytes, 3, 3);
  if (op == "accumulate") return {{0, elements * element_bytes * 3}, {}};
  return {{0, elements * (2 * element_bytes + 1)}, {0, elements * (2 * element_bytes + 1)}};  // a dropout and its mask
}

}  // namespace

bool is_matrix_operator(std::string_view op) {
  return op == "linear" || op == "attention_flash" || op == "attention_scores" || op == "attention_values";
}

OperatorWork operator_work(std::string_view op, const std::vector<std::int64_t>& sizes, int element_bytes) {
  const auto names = operator_size_names(op);
  GANTRY_CHECK(!names.empty(), "operator '{}' is not known", op);
  GANTRY_CHECK(sizes.size() == names.size(), "operator {}: expected {} sizes, found {}", op, names.size(),
               sizes.size());
  const std::vector<double> s(sizes.begin(), sizes.end());
  if (op == "linear") return linear_work(s[0], s[1], s[2], element_bytes);
  if (names.size() == 5) return attention_work(op, s, element_bytes);
  if (names.front() == "rows") return rows_work(op, s, element_bytes);
  return elements_work(op, s[0], element_bytes);
}

}  // namespace gantry::cost
