// MonochromaticConv: what a node says, and what its kernels are made from.
#pragma once
#include "../describe.h"

namespace onnx_lowrank {

// Y[n, f] = act(bias[s] + sum_taps filters[s] * Z[colour(s)]), s = order[f], Z[c] = sum_i
// colours[c, i] X[n, i]; colour(s) = s / (F / C').
struct Monochromatic {
  int64_t channels, filters, colours;
  Window window;
  Activation activation;
  std::vector<float> colour, filter, bias;
  std::vector<int64_t> order;
};

inline ShapesOf shapes_of(const Monochromatic& d, size_t axes) {
  return convolution({d.window, d.channels, d.filters, axes});
}

struct MonochromaticNode {
  WindowAttributes attributes;
  int64_t colours;

  explicit MonochromaticNode(const Attributes& a) : attributes(a), colours(a.integer("colours")) {}
  std::vector<int64_t> image(const std::vector<Tensor>& w) const {
    const std::vector<int64_t>& colour = w[0].shape;
    return image_of(colour, colour.size() < 2 ? 0 : colour[1]);
  }
  Monochromatic describe(const std::vector<int64_t>& x, const std::vector<Tensor>& w) const {
    expect_image(x);
    expect_weights(w, {"colours", "filters", "bias", "order"});
    require(w[1].shape.size() == x.size(), "filters has " + std::to_string(w[1].shape.size()) +
                                               " axes, X has " + std::to_string(x.size()));
    const int64_t F = w[1].shape[0];
    require(colours > 0 && F % colours == 0, std::to_string(F) + " filters do not divide into " +
                                                 std::to_string(colours) + " colours");
    expect(w[0], with_axes({colours, x[1]}, x, true), "colours");
    expect(w[1], with_axes({F, 1}, x, false, &w[1]), "filters");
    expect(w[2], {F}, "bias");
    return {x[1],
            F,
            colours,
            window(attributes, w[1].shape),
            attributes.activation,
            floats(w[0], "colours"),
            floats(w[1], "filters"),
            floats(w[2], "bias"),
            permutation(w[3], F, "order")};
  }
};

std::unique_ptr<Kernel> reference_kernel(const Monochromatic& d);
std::unique_ptr<Kernel> vector_kernel(const Monochromatic& d, const Simd& simd);

}  // namespace onnx_lowrank
