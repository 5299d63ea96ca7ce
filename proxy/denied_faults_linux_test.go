//go:build faults

package proxy

import (
	"fmt"
	"slices"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// denyAll has calls denied for good, for each engine after they have been made so often, until the test ends.
func denyAll(t *testing.T, all []call, err syscall.Errno, after int64) {
	t.Helper()
	onEachEngine = func(*Options) {
		for _, c := range all {
			denyAgain(c, after)
		}
	}
	t.Cleanup(func() { onEachEngine = func(*Options) {} })
	for _, c := range all {
		deny(c, err, after)
		t.Cleanup(func() { permit(c) })
	}
}

// Tests of the conformance suite, by what they are about.
var (
	bulkTests = []func(*testing.T){
		TestTCPBulkBothWays, TestTCPUrgentDataInBulk, TestTCPHalfCloseByClientKeepsReturnTraffic,
		TestTCPEarlyAnswerIsDelivered,
	}
	endTests = []func(*testing.T){
		TestTCPResetByClientReachesServer, TestTCPResetByServerReachesClientAfterItsBytes, TestTCPHalfCloseIsBounded,
		TestTCPClientIsResetWhenNobodyServes, TestTCPEarlyAnswerIsDelivered,
	}
	clientTests = []func(*testing.T){TestTCPRotates, TestTCPDeadEndpointIsNotNoticedByClients}

	datagramTests = []func(*testing.T){
		TestUDPEachClientHasASession, TestUDPDatagramsArriveWhole, TestUDPLosesNothingThatHasRoom,
		TestUDPRefusedSessionIsRepicked,
		TestUDPSessionEndsWithItsResponses, TestUDPOneWayNoticesARefusal, TestUDPSegmentedDatagramsArriveOneByOne,
		TestUDPBurstsOfAnswersKeepTheirBounds, TestUDPRequestsSpreadABurst,
	}
	hopsTests = []func(*testing.T){
		TestUDPTakesAHop, TestUDPLastHop, TestUDPBurstsTakeAHop, TestUDPOneWayTakesAHop, TestHandedSessionKeepsItsHops,
	}
	wildcardTests = []func(*testing.T){
		TestUDPWildcardAnswersFromTheAddressThatWasUsed, TestUDPWildcardKeepsLocalAddressesApart,
	}
)

// Whatever call is denied for good, from the start or from some time on: what the engines promise holds, and nothing is
// lost when it is denied first.
func TestCallsDeniedForGood(t *testing.T) {
	start, later := []int64{0}, []int64{0, 3} // the trial at the start is the first call
	for _, tt := range []struct {
		denied []call
		after  []int64
		tests  [][]func(*testing.T)
	}{
		{[]call{callSplice}, []int64{0, 2, 3, 8}, [][]func(*testing.T){bulkTests}},
		{[]call{callPipe}, []int64{0, 1}, [][]func(*testing.T){bulkTests}},
		{[]call{callPipeSize}, start, [][]func(*testing.T){bulkTests}},
		{[]call{callRoom}, later, [][]func(*testing.T){bulkTests}},
		{[]call{callWritable}, start, [][]func(*testing.T){bulkTests, {TestTCPStalledDestinationsHoldNoPipes}}},
		{[]call{callUnsent}, later, [][]func(*testing.T){endTests}},
		{[]call{callLinger}, later, [][]func(*testing.T){endTests}},
		{[]call{callAccept}, later, [][]func(*testing.T){clientTests}},
		{[]call{callExclusive}, later, [][]func(*testing.T){clientTests}},
		{[]call{callRecvmmsg}, later, [][]func(*testing.T){datagramTests, wildcardTests}},
		{[]call{callRecvmmsg, callRecvmsg}, start, [][]func(*testing.T){datagramTests}},
		{[]call{callSendmmsg}, later, [][]func(*testing.T){datagramTests, wildcardTests, hopsTests}},
		{[]call{callSendmmsg, callSendmsg}, later, [][]func(*testing.T){datagramTests, hopsTests}},
		{[]call{callCut}, start, [][]func(*testing.T){datagramTests, wildcardTests}},
		{[]call{callSharePort}, []int64{0, 1}, [][]func(*testing.T){datagramTests, wildcardTests}},
		{[]call{callHopsLeft}, []int64{0, 1}, [][]func(*testing.T){datagramTests}},
		{[]call{callHops}, later, [][]func(*testing.T){datagramTests}},
		{[]call{callHopsMessage}, []int64{0, 1, 3}, [][]func(*testing.T){datagramTests, hopsTests}},
		{[]call{callLocalAddr}, []int64{0, 1}, [][]func(*testing.T){datagramTests, {TestIPv4WildcardIsIPv4Only}}},
	} {
		for i, after := range tt.after {
			errno := []syscall.Errno{unix.EPERM, unix.ENOSYS, unix.EINVAL}[i%3]
			t.Run(fmt.Sprint(tt.denied, " after ", after), func(t *testing.T) {
				denyAll(t, tt.denied, errno, after)
				for _, test := range slices.Concat(tt.tests...) {
					test(t)
				}
				for _, c := range tt.denied {
					if denialsOf(c) == 0 {
						t.Errorf("%v was never denied, so this shows nothing", c)
					}
				}
			})
		}
	}
}
