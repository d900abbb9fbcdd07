// All that TensorRT's headers want of CUDA: two opaque types.
#pragma once
typedef struct CUstream_st *cudaStream_t;
typedef struct CUevent_st *cudaEvent_t;
