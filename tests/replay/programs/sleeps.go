// SPDX-License-Identifier: Apache-2.0

// A goroutine that sleeps in read(2), on a stack of its own and not known to Go's scheduler to do so.
package main

import "syscall"

//go:noinline
func leaf(fd int) uintptr {
	var b [8]byte
	n, _ := syscall.Read(fd, b[:])
	return uintptr(n)
}

//go:noinline
func middle(fd int) uintptr {
	var local [100]uintptr
	local[fd] = leaf(fd)
	return local[fd] + 1
}

func main() {
	println(middle(0))
}
