// What the vector kernels ask of an instruction set. Files that are compiled for one see this
// header, intrinsics and nothing else: a function of the standard library, or any inline function,
// that such a file emitted could be the copy that the linker keeps for all, on a CPU that cannot
// run it. So here are plain structures only, and each of these files defines one symbol, its table.
#pragma once
#include <stdint.h>

namespace onnx_lowrank {

// x -> clip to [min, max] -> x if x >= 0 else alpha x.
struct Activation {
  float min = -__builtin_inff(), max = __builtin_inff(), alpha = 1.0f;
};

// Lines that later work will touch, asked for a few at a time between tiles: parts of `planes` runs
// of `length` floats, `pitch` floats apart.
struct Ahead {
  struct Part {
    const float* base;
    int64_t planes, pitch, length;
  };
  Part parts[2];
  int count, now;
  int64_t done;
};

constexpr int kMostRows = 8;  // of a block of weights, for any instruction set

struct Product {
  const float* weights;  // [terms][rows]
  int64_t terms;
  int rows;
  const float* bias;  // [rows], or null for zeros
  const float* z;
  const int64_t* offset;         // [terms]
  const Activation* activation;  // null for none
  float* const* y;               // [rows]
  int64_t count, runs, z_step, y_step;
  Ahead* ahead;  // null for nothing
};

struct Depthwise {
  const float* z;
  const int64_t* tap;  // [taps]
  int64_t taps;
  const float* w;  // [taps][vectors L]
  int64_t vectors, step, lanes;
  float* t;
  int64_t pitch, n;
};

struct Normalise {
  int64_t plane, channels, before, after;
  float scale, beta, bias;
};

// One instruction set: the floats in a vector, the most rows in a block of weights, the functions.
struct Simd {
  int lanes, max_rows;
#define ONNX_LOWRANK_FUNCTION(name, parameters) void(*name) parameters;
#include "functions.inc"
#undef ONNX_LOWRANK_FUNCTION
};

namespace simd {
#define ONNX_LOWRANK_ISA(name, ...) extern const Simd name;
#include "../isas.inc"
#undef ONNX_LOWRANK_ISA
}  // namespace simd

}  // namespace onnx_lowrank
