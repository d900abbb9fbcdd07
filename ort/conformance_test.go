package ort_test

import (
	"testing"

	"github.com/quantgate/quantgate/engine/enginetest"
	"github.com/quantgate/quantgate/internal/orttest"
)

func TestConformance(t *testing.T) { enginetest.Test(t, orttest.Backend(t)) }
