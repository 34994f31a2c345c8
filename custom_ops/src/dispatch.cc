// Which instruction set runs: what the CPU has, or what ONNX_LOWRANK_ISA forces.
#include <cstdlib>
#include <stdexcept>
#include <string>

#include "kernels.h"

namespace onnx_lowrank {

const std::vector<Isa>& isas() {
  static const std::vector<Isa> all = {
      {"scalar", nullptr, [] { return true; }},
#ifdef ONNX_LOWRANK_X86
#define CPU(feature) __builtin_cpu_supports(feature)
#define ONNX_LOWRANK_ISA(name, features) {#name, &simd::name, [] { return bool(features); }},
#include "isas.inc"
#undef ONNX_LOWRANK_ISA
#undef CPU
#endif
  };
  return all;
}

const Isa& selected_isa() {
#ifdef ONNX_LOWRANK_X86
  __builtin_cpu_init();
#endif
  const char* forced = std::getenv("ONNX_LOWRANK_ISA");
  const Isa* selected = nullptr;
  std::string known;
  for (const Isa& isa : isas()) {
    known += (known.empty() ? "" : ", ") + std::string(isa.name);
    if (!forced || !*forced ? isa.runs() : isa.name == std::string(forced)) selected = &isa;
  }
  const std::string is = "ONNX_LOWRANK_ISA is '" + std::string(forced ? forced : "") + "'";
  if (!selected) throw std::runtime_error(is + "; known are " + known);
  if (!selected->runs()) throw std::runtime_error(is + ", which this CPU does not have");
  return *selected;
}

}  // namespace onnx_lowrank
