#include "low_rank.h"

namespace onnx_lowrank {

void kernel_cases::tucker2() {
  for_edges([](const Edge& e) {
    const Image in{2, 4, {1, e.height, e.width}};
    const int64_t F = 2 * e.rank, outputs = 2 * F * e.plane();
    compare("tucker2", random_layer(false, 4, F, 2, 5, e.rank, e.window), in, outputs);
    // One block, at stride 1 and from rank 8 on by Winograd.
    compare("tucker2 of one block", random_layer(false, 4, F, 1, 9, e.rank, e.window), in, outputs);
  });
  strips("tucker2 in strips", false);
}

}  // namespace onnx_lowrank
