// Package pb holds the ONNX messages generated from onnx.proto.
package pb

//go:generate protoc --proto_path=../../.. --go_out=../../.. --go_opt=paths=source_relative onnx/internal/pb/onnx.proto
