// Package pb holds the Caffe messages generated from caffe.proto.
package pb

//go:generate protoc --proto_path=../../.. --go_out=../../.. --go_opt=paths=source_relative caffe/internal/pb/caffe.proto
