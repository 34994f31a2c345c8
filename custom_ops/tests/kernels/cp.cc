#include "low_rank.h"

namespace onnx_lowrank {

void kernel_cases::cp() {
  for_edges([](const Edge& e) {
    compare("cp", random_layer(true, 4, 2 * e.rank, 2, e.rank, e.rank, e.window),
            {2, 4, {1, e.height, e.width}}, 2 * 2 * e.rank * e.plane());
  });
  strips("cp in strips", true);
}

}  // namespace onnx_lowrank
