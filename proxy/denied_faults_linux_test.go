//go:build faults

package proxy

import (
	"fmt"
	"slices"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/lictor-proxy/lictor/proxy/internal/sys"
)

// denyAll denies calls for good until the test ends. On each engine a call succeeds after times before it is denied.
func denyAll(t *testing.T, all []sys.Call, err syscall.Errno, after int64) {
	t.Helper()
	onEachEngine = func(*Options) {
		for _, c := range all {
			sys.DenyAgain(c, after)
		}
	}
	t.Cleanup(func() { onEachEngine = func(*Options) {} })
	for _, c := range all {
		sys.Deny(c, err, after)
		t.Cleanup(func() { sys.Permit(c) })
	}
}

// These are tests of the conformance suite, grouped by subject.
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
	headerTests = []func(*testing.T){
		TestAcceptProxyTrustsOnlyFrom, TestAcceptProxyAndRulesOnClients, TestSendProxyAgainToTheNextEndpoint,
		TestProxyHeadersArePassedOn, TestCutWhileTheHeaderIsMissing,
	}

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

// If a call is denied for good, at the start or later, the engines keep their promises and lose nothing.
func TestCallsDeniedForGood(t *testing.T) {
	start, later := []int64{0}, []int64{0, 3} // the trial at the start is the first call
	for _, tt := range []struct {
		denied []sys.Call
		after  []int64
		tests  [][]func(*testing.T)
	}{
		{[]sys.Call{sys.CallSplice}, []int64{0, 2, 3, 8}, [][]func(*testing.T){bulkTests}},
		{[]sys.Call{sys.CallPipe}, []int64{0, 1}, [][]func(*testing.T){bulkTests}},
		{[]sys.Call{sys.CallPipeSize}, start, [][]func(*testing.T){bulkTests}},
		{[]sys.Call{sys.CallRoom}, later, [][]func(*testing.T){bulkTests}},
		{[]sys.Call{sys.CallWritable}, start, [][]func(*testing.T){bulkTests, {TestTCPStalledDestinationsHoldNoPipes}}},
		{[]sys.Call{sys.CallUnsent}, later, [][]func(*testing.T){endTests}},
		{[]sys.Call{sys.CallLinger}, later, [][]func(*testing.T){endTests, headerTests}},
		{[]sys.Call{sys.CallAccept}, later, [][]func(*testing.T){clientTests, headerTests}},
		{[]sys.Call{sys.CallExclusive}, []int64{0, 2}, [][]func(*testing.T){clientTests}}, // each loop makes one call
		{[]sys.Call{sys.CallRecvmmsg}, later, [][]func(*testing.T){datagramTests, wildcardTests}},
		{[]sys.Call{sys.CallRecvmmsg, sys.CallRecvmsg}, start, [][]func(*testing.T){datagramTests}},
		{[]sys.Call{sys.CallSendmmsg}, later, [][]func(*testing.T){datagramTests, wildcardTests, hopsTests}},
		{[]sys.Call{sys.CallSendmmsg, sys.CallSendmsg}, later, [][]func(*testing.T){datagramTests, hopsTests}},
		{[]sys.Call{sys.CallCut}, start, [][]func(*testing.T){datagramTests, wildcardTests}},
		{[]sys.Call{sys.CallSharePort}, []int64{0, 1}, [][]func(*testing.T){datagramTests, wildcardTests}},
		{[]sys.Call{sys.CallHopsLeft}, []int64{0, 1}, [][]func(*testing.T){datagramTests}},
		{[]sys.Call{sys.CallHops}, later, [][]func(*testing.T){datagramTests}},
		{[]sys.Call{sys.CallHopsMessage}, []int64{0, 1, 3}, [][]func(*testing.T){datagramTests, hopsTests}},
		{[]sys.Call{sys.CallLocalAddr}, []int64{0, 1},
			[][]func(*testing.T){datagramTests, {TestIPv4WildcardIsIPv4Only}}},
	} {
		for i, after := range tt.after {
			errno := []syscall.Errno{unix.EPERM, unix.ENOSYS, unix.EINVAL}[i%3]
			t.Run(fmt.Sprint(tt.denied, " after ", after), func(t *testing.T) {
				denyAll(t, tt.denied, errno, after)
				for _, test := range slices.Concat(tt.tests...) {
					test(t)
				}
				for _, c := range tt.denied {
					if sys.DenialsOf(c) == 0 {
						t.Errorf("%v was never denied, so the test shows nothing", c)
					}
				}
			})
		}
	}
}
