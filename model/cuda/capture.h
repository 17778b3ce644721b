/* capture.h: two functions of CUDA 13 under its names, as CUDA 12 has them with a version behind. */
#ifndef ISO_CUDA_CAPTURE_H
#define ISO_CUDA_CAPTURE_H

#include <cuda_runtime_api.h>

#if CUDART_VERSION < 13000
#undef cudaStreamGetCaptureInfo /* CUDA 12's own is without edges */
#undef cudaStreamUpdateCaptureDependencies
#define cudaStreamGetCaptureInfo cudaStreamGetCaptureInfo_v3
#define cudaStreamUpdateCaptureDependencies cudaStreamUpdateCaptureDependencies_v2
#endif

#endif
