#include "../node_cases.h"

void node_cases::monochromatic(Bytes& in, const Drawn& drawn, Case* c) {
  const Shape ones(drawn.size.size(), 1);
  window(in, ones.size(), &c->info);
  const int64_t channels = in.between(1, 7), colours = in.between(1, 5),
                filters = colours * in.between(1, 17);
  c->info.integers["colours"] = colours;
  Inputs inputs(in, c);
  inputs.floats({drawn.batch, channels}, drawn.size);
  inputs.floats({colours, channels}, ones);
  inputs.floats({filters, 1}, drawn.kernel);
  inputs.floats({filters}, {});
  inputs.order(filters);
}
