#include "low_rank.h"

void node_cases::cp(Bytes& in, const Drawn& drawn, Case* c) { low_rank(true, in, drawn, c); }
