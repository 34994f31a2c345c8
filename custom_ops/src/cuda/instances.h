// Which instances of the kernels exist: the plans choose among them, launches and tests go through
// the same two lists.
#pragma once
#include <stdexcept>
#include <type_traits>

#include "launch.h"
#include "plan.h"

namespace onnx_lowrank::cuda {

template <int N>
using Int = std::integral_constant<int, N>;

[[noreturn]] inline void no_instance(const Launch& l) {
  throw std::logic_error("no kernel with " + std::to_string(l.p) + " pixels and " +
                         std::to_string(l.q) + " rows a thread");
}

// Calls f with a null pointer to the storage type.
template <class F>
void storage_type(Type type, F&& f) {
  switch (type) {
    case Type::kFloat:
      return f(static_cast<const float*>(nullptr));
    case Type::kHalf:
      return f(static_cast<const half*>(nullptr));
    case Type::kBFloat16:
      return f(static_cast<const __nv_bfloat16*>(nullptr));
  }
}

// Calls f(pixels, rows) with both as constants.
template <class F>
void mono_instance(const Launch& l, F&& f) {
  if (l.q == 8) {
    if (l.p == 1) return f(Int<1>{}, Int<8>{});
    if (l.p == 2) return f(Int<2>{}, Int<8>{});
    if (l.p == 4) return f(Int<4>{}, Int<8>{});
    if (l.p == 8) return f(Int<8>{}, Int<8>{});
  } else if (l.q == 12) {
    if (l.p == 1) return f(Int<1>{}, Int<12>{});
    if (l.p == 2) return f(Int<2>{}, Int<12>{});
    if (l.p == 4) return f(Int<4>{}, Int<12>{});
  } else if (l.q == 16) {
    if (l.p == 1) return f(Int<1>{}, Int<16>{});
    if (l.p == 2) return f(Int<2>{}, Int<16>{});
    if (l.p == 4) return f(Int<4>{}, Int<16>{});
  }
  no_instance(l);
}

template <class F>
void low_rank_instance(const Launch& l, F&& f) {
  if (l.q == 8) {
    if (l.p == 1) return f(Int<1>{}, Int<8>{});
    if (l.p == 2) return f(Int<2>{}, Int<8>{});
    if (l.p == 4) return f(Int<4>{}, Int<8>{});
  } else if (l.q == 16) {
    if (l.p == 1) return f(Int<1>{}, Int<16>{});
    if (l.p == 2) return f(Int<2>{}, Int<16>{});
    if (l.p == 4) return f(Int<4>{}, Int<16>{});
  }
  no_instance(l);
}

}  // namespace onnx_lowrank::cuda
