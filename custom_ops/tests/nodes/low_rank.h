// Nodes of CPConv and Tucker2Conv.
#pragma once
#include "../node_cases.h"

inline void low_rank(bool depthwise, Bytes& in, const Drawn& drawn, Case* c) {
  const Shape ones(drawn.size.size(), 1);
  window(in, ones.size(), &c->info);
  const int64_t G = in.between(1, 3), H = in.between(1, 3), C = G * in.between(1, 20),
                F = H * in.between(1, 9), K2 = in.between(1, 17),
                K1 = depthwise ? K2 : in.between(1, 17);
  c->info.integers = {{"input_groups", G},
                      {"output_groups", H},
                      {depthwise ? "channels" : "blocks", depthwise ? G * H * K2 : G * H}};
  Inputs inputs(in, c);
  inputs.floats({drawn.batch, C}, drawn.size);
  inputs.order(C);
  inputs.floats({G * H * K1, C / G}, ones);
  inputs.floats({G * H * K2, depthwise ? 1 : K1}, drawn.kernel);
  int64_t* middle = inputs.integers(G * H * K2);
  for (int64_t h = 0, i = 0; h < H; ++h)
    for (int64_t g = 0; g < G; ++g)
      for (int64_t k = 0; k < K2; ++k) middle[i++] = (g * H + h) * K2 + k;
  inputs.floats({F, G * K2}, ones);
  inputs.floats({F}, {});
  inputs.order(F);
}
