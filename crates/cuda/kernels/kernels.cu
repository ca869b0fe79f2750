// All kernels, as one module.
#include "activation.cu"
#include "attention.cu"
#include "dropout.cu"
#include "linear.cu"
#include "lowrank.cu"
#include "norm.cu"
#include "rotary.cu"
#include "tokens.cu"
