// Compares slots.h with the real headers of one TensorRT version: a pointer to a virtual member holds, under the Itanium ABI,
// one more than its offset in the table. The types in the casts are the signatures that nvinfer.c calls with. Compiled by the test.
#include <NvInfer.h>
#include <NvOnnxParser.h>

#include <cstdio>
#include <cstring>

extern "C" {
#include "slots.h"
}

using namespace nvinfer1;
using namespace nvinfer1::apiv;

static int bad, seen;

template <class M> static int slotOf(M member) {
    ptrdiff_t raw[2];
    static_assert(sizeof raw == sizeof member, "not the Itanium ABI");
    memcpy(raw, &member, sizeof raw);
    return (raw[0] & 1) ? int((raw[0] - 1) / ptrdiff_t(sizeof(void*))) : -1;
}

static void compare(char const* name, int want, int got) {
    seen++;
    printf("%s %d\n", name, got);
    if (want != got) {
        bad++;
        fprintf(stderr, "%s: the header's value is %d, slots.h has %d\n", name, got, want);
    }
}

static qg_slots const* ours;
#define CHECK(field, klass, method, result, ...) compare(#field, ours->field, slotOf(static_cast<result (klass::*)(__VA_ARGS__)>(&klass::method)))
#define CHECK_CONST(field, klass, method, result, ...) compare(#field, ours->field, slotOf(static_cast<result (klass::*)(__VA_ARGS__) const>(&klass::method)))
#define VALUE(field, value) compare(#field, ours->field, int(value))

// An interface object keeps its implementation's address in its second word, and its deleting destructor in slot 1.
template <class I> struct Probe : I {
    static bool destroyed;
    static int offset() {
        alignas(16) static char memory[sizeof(Probe)];
        auto* p = reinterpret_cast<Probe*>(memory);
        return int(reinterpret_cast<char*>(&p->mImpl) - memory);
    }
    ~Probe() override { destroyed = true; }
};
template <class I> bool Probe<I>::destroyed = false;

template <class I> static void interface(char const* name) {
    compare(name, 8, Probe<I>::offset());
    void* p = new Probe<I>();
    (*reinterpret_cast<void (***)(void*)>(p))[1](p);
    compare("its deleting destructor ran", 1, Probe<I>::destroyed);
}

int main() {
    ours = qg_slots_of(NV_TENSORRT_MAJOR);
    if (!ours) return fprintf(stderr, "no table for major version %d\n", NV_TENSORRT_MAJOR), 2;

    interface<IBuilder>("IBuilder");
    interface<INetworkDefinition>("INetworkDefinition");
    interface<IBuilderConfig>("IBuilderConfig");
    interface<IOptimizationProfile>("IOptimizationProfile");
    interface<IRuntime>("IRuntime");
    interface<ICudaEngine>("ICudaEngine");
    interface<IExecutionContext>("IExecutionContext");
    interface<IHostMemory>("IHostMemory");
    interface<IEngineInspector>("IEngineInspector");
    interface<ITimingCache>("ITimingCache");

    CHECK(builder_config, VBuilder, createBuilderConfig, IBuilderConfig*);
    CHECK(builder_network, VBuilder, createNetworkV2, INetworkDefinition*, NetworkDefinitionCreationFlags);
    CHECK(builder_profile, VBuilder, createOptimizationProfile, IOptimizationProfile*);
    CHECK(builder_build, VBuilder, buildSerializedNetwork, IHostMemory*, INetworkDefinition&, IBuilderConfig&);

    CHECK_CONST(network_inputs, VNetworkDefinition, getNbInputs, int32_t);
    CHECK_CONST(network_input, VNetworkDefinition, getInput, ITensor*, int32_t);
    CHECK_CONST(network_outputs, VNetworkDefinition, getNbOutputs, int32_t);
    CHECK_CONST(network_output, VNetworkDefinition, getOutput, ITensor*, int32_t);
    CHECK(network_unmark, VNetworkDefinition, unmarkOutput, void, ITensor&);
    CHECK_CONST(tensor_name, VTensor, getName, char const*);
    CHECK_CONST(tensor_dims, VTensor, getDimensions, Dims);
    CHECK_CONST(tensor_type, VTensor, getType, DataType);

    CHECK(config_set_flag, VBuilderConfig, setFlag, void, BuilderFlag);
    CHECK(config_clear_flag, VBuilderConfig, clearFlag, void, BuilderFlag);
    CHECK(config_add_profile, VBuilderConfig, addOptimizationProfile, int32_t, IOptimizationProfile const*);
    CHECK(config_verbosity, VBuilderConfig, setProfilingVerbosity, void, ProfilingVerbosity);
    CHECK(config_tactics, VBuilderConfig, setTacticSources, bool, TacticSources);
    CHECK_CONST(config_get_tactics, VBuilderConfig, getTacticSources, TacticSources);
    CHECK_CONST(config_timing_create, VBuilderConfig, createTimingCache, ITimingCache*, void const*, size_t);
    CHECK(config_timing_set, VBuilderConfig, setTimingCache, bool, ITimingCache const&, bool);
    CHECK(config_pool, VBuilderConfig, setMemoryPoolLimit, void, MemoryPoolType, size_t);
#if NV_TENSORRT_MAJOR < 11
    CHECK(config_calibrator, VBuilderConfig, setInt8Calibrator, void, IInt8Calibrator*);
    CHECK(config_calibration_profile, VBuilderConfig, setCalibrationProfile, bool, IOptimizationProfile const*);
#endif
#if NV_TENSORRT_MAJOR >= 10 || (NV_TENSORRT_MAJOR == 8 && NV_TENSORRT_MINOR >= 6)
    CHECK(config_level, VBuilderConfig, setBuilderOptimizationLevel, void, int32_t);
    CHECK(config_preview, VBuilderConfig, setPreviewFeature, void, PreviewFeature, bool);
#endif
#if NV_TENSORRT_MAJOR == 8 && NV_TENSORRT_MINOR >= 6
    VALUE(preview_profile_sharing, PreviewFeature::kPROFILE_SHARING_0806);
#endif
#if NV_TENSORRT_MAJOR < 10
    CHECK(profile_dims, VOptimizationProfile, setDimensions, bool, char const*, OptProfileSelector, Dims);
    CHECK(runtime_deserialize, VRuntime, deserializeCudaEngine, ICudaEngine*, void const*, size_t, IPluginFactory*);
    CHECK(engine_context, VCudaEngine, createExecutionContext, IExecutionContext*);
#else
    CHECK(config_monitor, VBuilderConfig, setProgressMonitor, void, IProgressMonitor*);
    CHECK(profile_dims, VOptimizationProfile, setDimensions, bool, char const*, OptProfileSelector, Dims const&);
    CHECK(runtime_deserialize, VRuntime, deserializeCudaEngine, ICudaEngine*, void const*, size_t);
    CHECK(engine_context, VCudaEngine, createExecutionContext, IExecutionContext*, ExecutionContextAllocationStrategy);
#endif
    CHECK_CONST(engine_inspector, VCudaEngine, createEngineInspector, IEngineInspector*);
    CHECK_CONST(engine_shape, VCudaEngine, getTensorShape, Dims, char const*);
    CHECK_CONST(engine_type, VCudaEngine, getTensorDataType, DataType, char const*);
    CHECK_CONST(engine_mode, VCudaEngine, getTensorIOMode, TensorIOMode, char const*);
    CHECK_CONST(engine_tensors, VCudaEngine, getNbIOTensors, int32_t);
    CHECK_CONST(engine_tensor, VCudaEngine, getIOTensorName, char const*, int32_t);
    CHECK(context_input_shape, VExecutionContext, setInputShape, bool, char const*, Dims const&);
    CHECK_CONST(context_shape, VExecutionContext, getTensorShape, Dims, char const*);
    CHECK(context_address, VExecutionContext, setTensorAddress, bool, char const*, void*);
    CHECK(context_enqueue, VExecutionContext, enqueueV3, bool, cudaStream_t);
    CHECK(inspector_context, VEngineInspector, setExecutionContext, bool, IExecutionContext const*);
    CHECK_CONST(inspector_information, VEngineInspector, getEngineInformation, char const*, LayerInformationFormat);
    CHECK_CONST(timing_serialize, VTimingCache, serialize, IHostMemory*);
    CHECK_CONST(memory_data, VHostMemory, data, void*);
    CHECK_CONST(memory_size, VHostMemory, size, size_t);

    CHECK(parser_parse, nvonnxparser::IParser, parse, bool, void const*, size_t, char const*);
    CHECK(parser_file, nvonnxparser::IParser, parseFromFile, bool, char const*, int);
    CHECK_CONST(parser_errors, nvonnxparser::IParser, getNbErrors, int);
    CHECK_CONST(parser_error, nvonnxparser::IParser, getError, nvonnxparser::IParserError const*, int);
    CHECK_CONST(parser_error_text, nvonnxparser::IParserError, desc, char const*);
    CHECK_CONST(parser_error_node, nvonnxparser::IParserError, node, int);
    // The parser's two destructors follow clearErrors; the second one deletes.
    compare("parser_delete", ours->parser_delete, slotOf(static_cast<void (nvonnxparser::IParser::*)()>(&nvonnxparser::IParser::clearErrors)) + 2);

    // Interfaces that nvinfer.c implements.
    CHECK(logger_log, ILogger, log, void, ILogger::Severity, char const*);
#if NV_TENSORRT_MAJOR < 11
    CHECK_CONST(calibrator_batch_size, IInt8Calibrator, getBatchSize, int32_t);
    CHECK(calibrator_batch, IInt8Calibrator, getBatch, bool, void**, char const**, int32_t);
    CHECK(calibrator_read, IInt8Calibrator, readCalibrationCache, void const*, size_t&);
    CHECK(calibrator_write, IInt8Calibrator, writeCalibrationCache, void, void const*, size_t);
    CHECK(calibrator_algorithm, IInt8Calibrator, getAlgorithm, CalibrationAlgoType);
    VALUE(algorithm_entropy, CalibrationAlgoType::kENTROPY_CALIBRATION);
    VALUE(algorithm_entropy2, CalibrationAlgoType::kENTROPY_CALIBRATION_2);
    VALUE(algorithm_minmax, CalibrationAlgoType::kMINMAX_CALIBRATION);
#endif
#if NV_TENSORRT_MAJOR >= 10
    CHECK_CONST(versioned_language, IVersionedInterface, getAPILanguage, APILanguage);
    CHECK_CONST(versioned_info, IVersionedInterface, getInterfaceInfo, InterfaceInfo);
    CHECK(monitor_start, IProgressMonitor, phaseStart, void, char const*, char const*, int32_t);
    CHECK(monitor_step, IProgressMonitor, stepComplete, bool, char const*, int32_t);
    CHECK(monitor_finish, IProgressMonitor, phaseFinish, void, char const*);
    static_assert(sizeof(InterfaceInfo) == 16, "two registers");
#endif
#if NV_TENSORRT_MAJOR < 11
    VALUE(flag_fp16, BuilderFlag::kFP16);
    VALUE(flag_int8, BuilderFlag::kINT8);
#endif
    VALUE(flag_tf32, BuilderFlag::kTF32);
    VALUE(dims_bytes, sizeof(Dims));
    printf("TensorRT %d.%d: %d values compared, %d differ\n", NV_TENSORRT_MAJOR, NV_TENSORRT_MINOR, seen, bad);
    return bad != 0;
}
