package trt

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/quantgate/quantgate/engine"
)

// The layers are those of INT8 engines that 8.6.1 built on an H100, shortened: an open batch, so no formats.
func TestParseLayers(t *testing.T) {
	const open = `"Inputs": [{"Format/Datatype": "N/A due to dynamic shapes"}], "Outputs": [{"Format/Datatype": "N/A due to dynamic shapes"}]`
	layers, err := parseLayers(`{"Layers": [
		{"Name": "Reformatting CopyNode", "LayerType": "Reformat", ` + open + `},
		{"Name": "conv0 + relu0", "LayerType": "CaskConvolution", "Weights": {"Type": "Int8", "Count": 1728}, "TacticName": "sm80_xmma_fprop_first_layer_i8i8_i8i32_f32", ` + open + `},
		{"Name": "pool0", "LayerType": "CaskPooling", "TacticName": "sm72_xmma_pooling_IMMA_NCxHW32_generic_kMAX", ` + open + `},
		{"Name": "gap", "LayerType": "CaskPooling", "TacticName": "sm50_xmma_pooling_fw_4d_FP32FP32NCHW_Average_FastDiv", ` + open + `},
		{"Name": "PWN(leaky_re_lu_1)", "LayerType": "PointWiseV2", ` + open + `},
		{"Name": "preds", "LayerType": "CaskGemmConvolution", "Weights": {"Type": "Float", "Count": 9}, "TacticName": "sm80_xmma_gemm_f32f32_tf32f32_f32", ` + open + `},
		{"Name": "half", "LayerType": "CaskConvolution", "Weights": {"Type": "Half", "Count": 9}, ` + open + `},
		{"Name": "told", "LayerType": "PointWiseV2", "Inputs": [{"Format/Datatype": "Thirty-two wide channel vectorized row major Int8 format"}]},
		"a name alone"
	]}`)
	require.NoError(t, err)
	var got []string
	computing := 0
	for _, l := range layers {
		got = append(got, l.Precision)
		if l.Computes() {
			computing++
		}
	}
	require.Equal(t, []string{engine.NoArithmetic, "int8", "int8", "fp32", "unknown", "fp32", "fp16", "int8", "unknown"}, got)
	require.Equal(t, 8, computing)
	require.Equal(t, "sm72_xmma_pooling_IMMA_NCxHW32_generic_kMAX", layers[2].Kernel)
}
