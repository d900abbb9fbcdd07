package engine

import "errors"

// AllocBatches allocates memory for count batches of n values each: all or, where one cannot be had, none. free gives back all of it.
func AllocBatches(h HostMemory, count, n int) (batches [][]float32, free func() error, err error) {
	var frees []func() error
	free = func() error {
		var err error
		for _, f := range frees {
			err = errors.Join(err, f())
		}
		return err
	}
	for range count {
		x, f, err := h.AllocHost(n)
		if err != nil {
			return nil, nil, errors.Join(err, free())
		}
		batches, frees = append(batches, x), append(frees, f)
	}
	return batches, free, nil
}
