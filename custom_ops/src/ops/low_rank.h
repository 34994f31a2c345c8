// CPConv and Tucker2Conv: what a node says, and what its kernels are made from.
#pragma once
#include "../describe.h"

namespace onnx_lowrank {

// GH blocks, block (g, h): Z = A_gh X_g (K1 rows), T = core_gh * Z (K2 rows; depthwise when
// `depthwise`, then K1 = K2), Y_h = act(bias + sum_g B_hg T); input channel i of the blocks is
// X[input_order[i]], Y[f] = sorted[output_order[f]].
struct LowRank {
  bool depthwise;
  int64_t channels, filters, input_groups, output_groups, rank1, rank2;
  Window window;
  Activation activation;
  std::vector<float> a, core, b, bias;
  std::vector<int64_t> input_order, output_order;
};

inline ShapesOf shapes_of(const LowRank& d, size_t axes) {
  return convolution({d.window, d.channels, d.filters, axes});
}

struct LowRankNode {
  bool depthwise;
  WindowAttributes attributes;
  int64_t input_groups, output_groups, core_groups;

  LowRankNode(const Attributes& a, bool depthwise_)
      : depthwise(depthwise_),
        attributes(a),
        input_groups(a.integer("input_groups")),
        output_groups(a.integer("output_groups")),
        core_groups(a.integer(depthwise ? "channels" : "blocks")) {}
  std::vector<int64_t> image(const std::vector<Tensor>& w) const {
    return image_of(w[1].shape, w[0].shape.empty() ? 0 : w[0].shape[0]);
  }
  LowRank describe(const std::vector<int64_t>& x, const std::vector<Tensor>& w) const {
    expect_image(x);
    const char* const middle_weights = depthwise ? "depthwise" : "core";
    expect_weights(
        w, {"input_order", "A", middle_weights, "middle_order", "B", "bias", "output_order"});
    const int64_t G = input_groups, H = output_groups, C = x[1];
    const Tensor &A = w[1], &core = w[2], &B = w[4];
    require(
        A.shape.size() == x.size() && core.shape.size() == x.size() && B.shape.size() == x.size(),
        "A, core and B must have as many axes as X");
    const int64_t F = B.shape[0];
    require(G > 0 && H > 0 && C > 0 && C % G == 0 && F % H == 0,
            "input_groups and output_groups must divide the channels " + std::to_string(C) +
                " and " + std::to_string(F));
    // G and H are no larger than an axis: their product cannot overflow.
    require(A.shape[0] % (G * H) == 0 && core.shape[0] % (G * H) == 0,
            "rows of A and core must be a multiple of input_groups x output_groups");
    const int64_t K1 = A.shape[0] / (G * H), K2 = core.shape[0] / (G * H);
    require(!depthwise || K1 == K2, "A has " + std::to_string(A.shape[0]) + " rows, depthwise " +
                                        std::to_string(core.shape[0]));
    // The kernels need no number of groups for the core, but the function body goes by it.
    require(core_groups == (depthwise ? G * H * K2 : G * H),
            std::string(depthwise ? "channels" : "blocks") + " is " + std::to_string(core_groups) +
                ", expected " + std::to_string(depthwise ? G * H * K2 : G * H));
    expect(A, with_axes({G * H * K1, C / G}, x, true), "A");
    expect(core, with_axes({G * H * K2, depthwise ? 1 : K1}, x, false, &core), middle_weights);
    expect(B, with_axes({F, G * K2}, x, true), "B");
    expect(w[5], {F}, "bias");
    auto middle = permutation(w[3], G * H * K2, "middle_order");
    bool regroups = true;
    for (int64_t h = 0, i = 0; h < H; ++h)
      for (int64_t g = 0; g < G; ++g)
        for (int64_t k = 0; k < K2; ++k, ++i)
          regroups = regroups && middle[i] == (g * H + h) * K2 + k;
    require(regroups, "middle_order is not the permutation from (g,h) to (h,g) order");
    return {depthwise,
            C,
            F,
            G,
            H,
            K1,
            K2,
            window(attributes, core.shape),
            attributes.activation,
            floats(A, "A"),
            floats(core, "core"),
            floats(B, "B"),
            floats(w[5], "bias"),
            permutation(w[0], C, "input_order"),
            permutation(w[6], F, "output_order")};
  }
};

std::unique_ptr<Kernel> reference_kernel(const LowRank& d);
std::unique_ptr<Kernel> cp_kernel(const LowRank& d, const Simd& simd);
std::unique_ptr<Kernel> tucker2_kernel(const LowRank& d, const Simd& simd);
std::unique_ptr<Kernel> vector_kernel(const LowRank& d, const Simd& simd);  // one of the two

}  // namespace onnx_lowrank
