// Which instruction set runs: what the CPU has, or what ONNX_LOWRANK_ISA forces.
#include <cstdlib>
#include <stdexcept>

#include "kernels.h"

namespace onnx_lowrank {

Isa selected_isa() {
#ifdef ONNX_LOWRANK_X86
  __builtin_cpu_init();
  const bool fma = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  const Isa best = fma && __builtin_cpu_supports("avx512f") ? Isa::kAvx512
                   : fma                                    ? Isa::kAvx2
                                                            : Isa::kScalar;
#else
  const Isa best = Isa::kScalar;
#endif
  const char* forced = std::getenv("ONNX_LOWRANK_ISA");
  if (!forced || !*forced) return best;
  const std::string name = forced;
  Isa isa;
  if (name == "scalar")
    isa = Isa::kScalar;
  else if (name == "avx2")
    isa = Isa::kAvx2;
  else if (name == "avx512")
    isa = Isa::kAvx512;
  else
    throw std::runtime_error("ONNX_LOWRANK_ISA is '" + name + "'; known are scalar, avx2, avx512");
  if (isa > best)
    throw std::runtime_error("ONNX_LOWRANK_ISA is '" + name +
                             "', which this CPU or build does not have");
  return isa;
}

namespace {
template <class D>
std::unique_ptr<Kernel> choose(Isa isa, const D& d, bool flat) {
#ifdef ONNX_LOWRANK_X86
  if (flat && isa == Isa::kAvx512) return avx512::make(d);
  if (flat && isa == Isa::kAvx2) return avx2::make(d);
#endif
  (void)isa;
  (void)flat;
  return scalar::make(d);
}
}  // namespace

// Three spatial axes have no fast path: the reference serves them.
std::unique_ptr<Kernel> make_kernel(Isa isa, const Monochromatic& d, bool flat) {
  return choose(isa, d, flat);
}
std::unique_ptr<Kernel> make_kernel(Isa isa, const LowRank& d, bool flat) {
  return choose(isa, d, flat);
}
std::unique_ptr<Kernel> make_kernel(Isa isa, const Lrn& d) { return choose(isa, d, true); }

}  // namespace onnx_lowrank
