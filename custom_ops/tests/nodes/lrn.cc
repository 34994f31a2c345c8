#include "../node_cases.h"

void node_cases::lrn(Bytes& in, const Drawn& drawn, Case* c) {
  c->info.integers["size"] = in.between(1, 9);
  c->info.reals = {{"alpha", 0.5f}, {"beta", in.up_to(1) ? 0.75f : 0.5f}, {"bias", 1.0f}};
  c->powers = true;
  Inputs(in, c).floats({drawn.batch, in.between(1, 12)}, drawn.size);
}
