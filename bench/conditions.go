package bench

import (
	"math"
	"slices"
	"sync"
	"time"
)

// Reading is a device's state at one moment. What it does not tell is 0.
type Reading struct {
	ClockMHz       int
	MemoryClockMHz int
	PowerWatts     float64
	EnergyJoules   float64 // since some moment before the measurement
	TemperatureC   int
	Throttled      []string // why clocks are held down
}

// Sensor reads a device's state.
type Sensor interface{ Read() (Reading, error) }

// Conditions are the devices' state while throughput was measured.
type Conditions struct {
	ClockMHz       float64  `json:"clock_mhz"`     // mean, over devices and readings
	ClockMinMHz    int      `json:"clock_min_mhz"` // least
	ClockMaxMHz    int      `json:"clock_max_mhz"` // most
	MemoryClockMHz int      `json:"memory_clock_mhz,omitempty"`
	PowerWatts     float64  `json:"power_watts,omitempty"`   // of all devices together
	TemperatureC   int      `json:"temperature_c,omitempty"` // the hottest
	Throttled      []string `json:"throttled,omitempty"`     // why clocks were held down, at any moment
	Readings       int      `json:"readings"`                // of each device
}

// Summarise reduces the readings of each device, taken over the given time. Power is the energy that went by where the device counts it,
// which it does exactly; else the mean of the readings. Nil where a device was never read.
func Summarise(devices [][]Reading, over time.Duration) *Conditions {
	c := &Conditions{ClockMinMHz: math.MaxInt}
	n, clocks := 0, 0
	for _, readings := range devices {
		if len(readings) == 0 {
			return nil
		}
		power := 0.0
		for _, r := range readings {
			n, clocks = n+1, clocks+r.ClockMHz
			c.ClockMinMHz, c.ClockMaxMHz = min(c.ClockMinMHz, r.ClockMHz), max(c.ClockMaxMHz, r.ClockMHz)
			c.MemoryClockMHz, c.TemperatureC = max(c.MemoryClockMHz, r.MemoryClockMHz), max(c.TemperatureC, r.TemperatureC)
			power += r.PowerWatts / float64(len(readings))
			for _, why := range r.Throttled {
				if !slices.Contains(c.Throttled, why) {
					c.Throttled = append(c.Throttled, why)
				}
			}
		}
		first, last := readings[0].EnergyJoules, readings[len(readings)-1].EnergyJoules
		if last > first && over > 0 {
			power = (last - first) / over.Seconds()
		}
		c.PowerWatts += power
	}
	if n == 0 {
		return nil
	}
	c.ClockMHz = float64(clocks) / float64(n)
	c.Readings = n / len(devices)
	slices.Sort(c.Throttled)
	return c
}

// Watch reads the sensors now, then every interval until stop is called, and once more then. failed receives the first error of a sensor,
// after which there are no conditions.
func Watch(sensors []Sensor, interval time.Duration, failed func(error)) (stop func() *Conditions) {
	readings := make([][]Reading, len(sensors))
	var broken error
	read := func() {
		for i, s := range sensors {
			if broken != nil {
				return
			}
			var r Reading
			if r, broken = s.Read(); broken == nil {
				readings[i] = append(readings[i], r)
			}
		}
	}
	began := time.Now()
	read()
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		ticker := time.NewTicker(interval)
		defer ticker.Stop()
		for {
			select {
			case <-ticker.C:
				read()
			case <-done:
				return
			}
		}
	})
	return func() *Conditions {
		close(done)
		wg.Wait()
		read()
		if broken != nil {
			failed(broken)
			return nil
		}
		return Summarise(readings, time.Since(began))
	}
}
