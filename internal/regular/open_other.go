//go:build !unix

package regular

// AtOnce has no effect on this system, because opening a file does not block.
const AtOnce = 0

// NoFollow has no effect on this system, because creating links needs a privilege.
const NoFollow = 0
