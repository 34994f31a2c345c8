#include "low_rank.h"

void node_cases::tucker2(Bytes& in, const Drawn& drawn, Case* c) { low_rank(false, in, drawn, c); }
