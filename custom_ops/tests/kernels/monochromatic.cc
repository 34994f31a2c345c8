#include "../kernel_cases.h"
#include "../../src/ops/monochromatic.h"

namespace onnx_lowrank {

void kernel_cases::monochromatic() {
  for_edges([](const Edge& e) {
    auto layer = [&](int64_t channels, int64_t colours, const Activation& activation) {
      const int64_t filters = colours * e.rank;
      compare("mono",
              Monochromatic{channels, filters, colours, e.window, activation,
                            values(colours * channels), values(filters * 9), values(filters),
                            shuffled(filters)},
              {2, channels, {1, e.height, e.width}}, 2 * filters * e.plane());
    };
    layer(4, 2, {-0.5f, 1.0f, 0.1f});
    layer(2, 3, {});  // few channels are padded before they are mixed
  });
}

}  // namespace onnx_lowrank
