// SPDX-License-Identifier: Apache-2.0

// What has the runtime leave the stack of the goroutine.
package main

import (
	"syscall"
	"time"
)

var sink []byte
var sum int

//go:noinline
func large(n int) {
	sink = make([]byte, n)
}

//go:noinline
func deep(n int) int {
	var local [256]int
	if n == 0 {
		return 0
	}
	local[n%256] = deep(n - 1)
	return local[n%256] + 1
}

//go:noinline
func clock() int64 {
	return time.Now().UnixNano()
}

//go:noinline
func raise() {
	syscall.Kill(syscall.Getpid(), syscall.SIGUSR1)
}

func main() {
	what, _ := syscall.Getenv("STACK")
	switch what {
	case "large":
		large(1 << 20)
	case "deep":
		sum = deep(100)
	case "clock":
		sum = int(clock())
	case "raise":
		raise()
	}
}
