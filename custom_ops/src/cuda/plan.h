// What the host decides before a kernel runs: how weights are packed, which tile a block has, how
// many blocks there are. Plain C++; the tests run it without CUDA.
#pragma once
#include <vector>

#include "../ops/low_rank.h"
#include "../ops/lrn.h"
#include "../ops/monochromatic.h"
#include "low_rank.cuh"
#include "lrn.cuh"
#include "monochromatic.cuh"

namespace onnx_lowrank::cuda {

// What a plan must know of a GPU.
struct Device {
  int multiprocessors;
  int shared_block,
      shared_multiprocessor;  // bytes: the most for a block that asks for it; on a multiprocessor
};

// One array on the device per type; parameters point into it.
struct Packed {
  std::vector<float> floats;
  std::vector<int> ints;
};

struct Launch {
  int blocks, threads, shared_bytes;
  int p, q;  // pixels and rows of a thread: which instance of the kernel
};

// The plans throw std::runtime_error, with a sentence, where a layer fits no block or an index no
// int.

class MonoPlan {
 public:
  explicit MonoPlan(const Monochromatic& d);
  const Packed& packed() const { return packed_; }
  Launch plan(const Image& in, const Device& device, const float* floats, const int* ints,
              MonoParams* params) const;

 private:
  Monochromatic d_;
  Packed packed_;
  int q_, chunks_;
  size_t filter_ = 0, bias_ = 0;  // where they begin in packed_.floats
};

class LowRankPlan {
 public:
  explicit LowRankPlan(const LowRank& d);
  const Packed& packed() const { return packed_; }
  bool depthwise() const { return d_.depthwise; }
  Launch plan(const Image& in, const Device& device, const float* floats, const int* ints,
              LowRankParams* params) const;

 private:
  LowRank d_;
  Packed packed_;
  int q_, units1_, units2_, units3_;
  size_t core_ = 0, b_ = 0, bias_ = 0, target_ = 0;
};

Launch plan_lrn(const Lrn& d, const Image& in, const Device& device, LrnParams* params);

}  // namespace onnx_lowrank::cuda
