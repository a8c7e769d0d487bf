package cli

import (
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
)

// memoryFiles hold the memory limit of the container: cgroup v2, then v1.
var memoryFiles = []string{
	"/sys/fs/cgroup/memory.max",
	"/sys/fs/cgroup/memory/memory.limit_in_bytes",
}

// perProcessor is the memory that a processor is used for: compressors, open
// streams and connections are as many as there are processors.
const perProcessor = 64 << 20

// limitMemory tells the garbage collector of the container's limit, so that
// it works harder before the kernel kills the process. A tenth is left for
// what the collector does not count. GOMEMLIMIT, when set, wins. In little memory
// not all processors of a large node are used, unless GOMAXPROCS says so.
func (a *App) limitMemory() {
	if a.Getenv("GOMEMLIMIT") != "" {
		return
	}
	for _, path := range memoryFiles {
		content, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		if limit, ok := parseMemoryLimit(string(content)); ok {
			debug.SetMemoryLimit(limit / 10 * 9)
			if a.Getenv("GOMAXPROCS") == "" {
				runtime.GOMAXPROCS(processors(runtime.GOMAXPROCS(0), limit))
			}
			return
		}
	}
}

// processors is how many of n are used in that much memory: two at least.
func processors(n int, limit int64) int {
	return int(min(int64(n), max(2, limit/perProcessor)))
}

// parseMemoryLimit reads a cgroup's limit in bytes. "max" and the huge number
// by which cgroup v1 says the same are no limit.
func parseMemoryLimit(s string) (int64, bool) {
	n, err := strconv.ParseInt(strings.TrimSpace(s), 10, 64)
	if err != nil || n <= 0 || n >= 1<<60 {
		return 0, false
	}
	return n, true
}
