// Random weights and permutations of the tests.
#pragma once
#include <algorithm>
#include <cstdint>
#include <numeric>
#include <random>
#include <vector>

inline std::mt19937 engine(1);

inline std::vector<float> values(int64_t n, double scale = 1.0) {
  std::normal_distribution<float> normal(0.0f, static_cast<float>(scale));
  std::vector<float> v(n);
  for (float& x : v) x = normal(engine);
  return v;
}

inline std::vector<int64_t> shuffled(int64_t n) {
  std::vector<int64_t> v(n);
  std::iota(v.begin(), v.end(), 0);
  std::shuffle(v.begin(), v.end(), engine);
  return v;
}
