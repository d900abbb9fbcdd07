// An NVML that knows the fake driver's GPUs. Its figures follow from the device's index and from how often it was asked. OLD_NVML leaves out
// all that is not needed to find a GPU and read its clocks.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int handles[8];
static unsigned long long asked[8];
#define AT(d) ((int *)(d) - handles)

static int mode(const char *what) {
	const char *m = getenv("FAKE_NVML");
	return m && !strcmp(m, what);
}

int nvmlInit_v2(void) { return mode("no_driver") ? 9 : 0; }
const char *nvmlErrorString(int r) { return r == 9 ? "Driver Not Loaded" : r == 3 ? "Not Supported" : r == 6 ? "Not Found" : "Unknown Error"; }
int nvmlDeviceGetHandleByPciBusId_v2(const char *pci, void **d) {
	int i;
	if (sscanf(pci, "0000:%d:00.0", &i) != 1 || i > 7) return 6;
	return *d = &handles[i], 0;
}
int nvmlDeviceGetClockInfo(void *d, int kind, unsigned *mhz) { return *mhz = kind == 1 ? (mode("slow") ? 900 : 1980) + AT(d) : 2619, 0; }

#ifndef OLD_NVML
int nvmlSystemGetDriverVersion(char *s, unsigned n) { return snprintf(s, n, "550.54"), 0; }
int nvmlDeviceGetMaxClockInfo(void *d, int kind, unsigned *mhz) { return *mhz = kind == 1 ? 1980 + AT(d) : 2619, 0; }
int nvmlDeviceGetPowerUsage(void *d, unsigned *mw) { return *mw = 500000 + 1000 * AT(d), 0; }
int nvmlDeviceGetTotalEnergyConsumption(void *d, unsigned long long *mj) {
	if (mode("no_energy")) return 3;
	return *mj = 1000 * __sync_add_and_fetch(&asked[AT(d)], 1), 0;
}
int nvmlDeviceGetEnforcedPowerLimit(void *d, unsigned *mw) { return *mw = 700000, 0; }
int nvmlDeviceGetTemperature(void *d, int sensor, unsigned *c) { return sensor ? 2 : (*c = 50 + AT(d), 0); }
int nvmlDeviceGetCurrentClocksThrottleReasons(void *d, unsigned long long *r) { return *r = mode("slow") ? 0x24 : 0, 0; }
#endif
