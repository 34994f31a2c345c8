// From the shape of X, known when a node runs, to the image that a kernel reads and the shape of Y;
// every size is checked.
#pragma once
#include <algorithm>

#include "abi/values.h"
#include "kernels.h"

namespace onnx_lowrank {

// What the shapes depend on of a convolution's description.
struct Outline {
  Window window;
  int64_t channels = -1, filters = 0;
  size_t axes = 0;
};

struct Shapes {
  Image image;
  std::vector<int64_t> y;
  int64_t x_count, y_count;
};
using ShapesOf = std::function<Shapes(const std::vector<int64_t>& x)>;

inline void expect_extents(const std::vector<int64_t>& shape, const char* name) {
  for (int64_t d : shape)
    require(d >= 0 && d <= kMostExtent, std::string(name) + " has shape " + text(shape) +
                                            ", expected axes of 0 to " +
                                            std::to_string(kMostExtent));
}

// Before a description is made for X: it needs the axes and the channels.
inline void expect_image(const std::vector<int64_t>& x) {
  require(x.size() >= 3 && x.size() <= 5,
          "X has shape " + text(x) + ", expected one to three spatial axes");
  expect_extents(x, "X");
}

inline Shapes convolved(const Outline& layer, const std::vector<int64_t>& x) {
  expect_image(x);
  require(x.size() == layer.axes && x[1] == layer.channels,
          "X has shape " + text(x) + ", expected " + std::to_string(layer.channels) +
              " channels and " + std::to_string(layer.axes) + " axes");
  Shapes s{{x[0], x[1], {1, 1, 1}}, {x[0], layer.filters}, count_of(x), 0};
  Size padded = 1;
  double held = kMostPadding;
  for (size_t i = 2; i < x.size(); ++i) {
    const int axis = static_cast<int>(5 - x.size() + i - 2);
    s.image.size[axis] = x[i];
    s.y.push_back(layer.window.output(axis, x[i]));
    require(s.y.back() > 0, "X of shape " + text(x) + " is smaller than the kernel");
    require(x[i] > 0, "X of shape " + text(x) + " is empty and Y is not");
    padded = padded * (x[i] + layer.window.begin[axis] + layer.window.end[axis]);
    held *= static_cast<double>(x[i] + layer.window.kernel[axis]);
  }
  require(padded <= kSmallImage || static_cast<double>(padded) <= held,
          "pads make " + std::to_string(padded) + " positions of X of shape " + text(x) +
              ", more than " + std::to_string(kMostPadding) + " times those of X and the kernel");
  s.y_count = count_of(s.y);
  return s;
}

inline ShapesOf convolution(const Outline& layer) {
  return [layer](const std::vector<int64_t>& x) { return convolved(layer, x); };
}

}  // namespace onnx_lowrank
