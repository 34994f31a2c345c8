// Each instruction set's kernels against the scalar reference; also what the sanitizers run.
#include "kernel_cases.h"

using namespace onnx_lowrank;

int main() {
  const std::pair<const char*, void (*)()> ops[] = {
#define ONNX_LOWRANK_OP(file, name, ...) {#name, kernel_cases::file},
#include "../src/ops.inc"
#undef ONNX_LOWRANK_OP
  };
  for (const auto& [name, run] : ops) {
    const int before = cases;
    run();
    if (cases == before) std::printf("%s has no cases\n", name);
  }
  std::printf("%d cases, %d failures\n", cases, failures);
  return failures != 0;
}
