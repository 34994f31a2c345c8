// The functions of simd.h, written once over `Vec`; included by one file per instruction set,
// inside an unnamed namespace. Nothing but intrinsics and builtins is called: see simd.h.

constexpr int L = Vec::L;

int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
int64_t greatest(int64_t a, int64_t b) { return a > b ? a : b; }
int64_t ceil_div(int64_t n, int64_t by) { return (n + by - 1) / by; }
// How many of the next L floats there are.
int lanes_of(int64_t left) { return static_cast<int>(least(L, left)); }

#include "product.inl"
#include "rows.inl"
#include "lanes.inl"
#include "winograd.inl"
#include "lrn.inl"

constexpr Simd kFunctions = {
    L,
    Vec::kRows,
#define ONNX_LOWRANK_FUNCTION(name, parameters) name,
#include "functions.inc"
#undef ONNX_LOWRANK_FUNCTION
};
