//go:build linux

// Command capture counts every packet that enters or leaves the host (the network namespace) that it runs on, by what it is and whom it
// goes to or comes from, and keeps what it says by multicast DNS. It prints "ready" once it sees all, and the counts as JSON when its input ends.
package main

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"unsafe"
)

// flow is all packets of a kind in one direction between this host and another one.
type flow struct {
	Out      bool   `json:"out"`
	Protocol string `json:"protocol"` // udp, tcp, icmp, arp, …, or a number
	Remote   string `json:"remote"`   // the other end: an address, with the port where there is one
	Packets  int    `json:"packets"`
	Bytes    int    `json:"bytes"`
}

// counted is a flow, and what multicast DNS said in it: each packet from this host, from the UDP payload on.
type counted struct {
	*flow
	Said [][]byte `json:"said,omitempty"`
}

// mdns is multicast DNS (RFC 6762): what a host tells everybody on its local network.
const mdns = 5353

var protocols = map[byte]string{1: "icmp", 2: "igmp", 6: "tcp", 17: "udp", 58: "icmpv6"}

// of tells of a packet, from its link-level type on.
func of(etherType uint16, out bool, p []byte) flow {
	f := flow{Out: out, Protocol: fmt.Sprintf("ethertype %#04x", etherType)}
	var number byte
	var src, dst netip.Addr
	var rest []byte
	switch {
	case etherType == syscall.ETH_P_ARP:
		f.Protocol = "arp"
		return f
	case etherType == syscall.ETH_P_IP && len(p) >= 20 && len(p) >= int(p[0]&15)*4:
		number, rest = p[9], p[int(p[0]&15)*4:]
		src, dst = netip.AddrFrom4([4]byte(p[12:16])), netip.AddrFrom4([4]byte(p[16:20]))
		if binary.BigEndian.Uint16(p[6:])&0x1fff != 0 { // a later fragment has no ports
			rest = nil
		}
	case etherType == syscall.ETH_P_IPV6 && len(p) >= 40:
		number, rest = p[6], p[40:]
		if number == 0 && len(rest) >= 8 { // hop-by-hop options, as multicast listeners' reports have them
			number, rest = rest[0], rest[min(len(rest), 8+8*int(rest[1])):]
		}
		src, dst = netip.AddrFrom16([16]byte(p[8:24])), netip.AddrFrom16([16]byte(p[24:40]))
	default:
		return f
	}
	if f.Protocol = protocols[number]; f.Protocol == "" {
		f.Protocol = fmt.Sprint(number)
	}
	remote, port := src, 0
	if out {
		remote, port = dst, 2
	}
	f.Remote = remote.String()
	if (number == syscall.IPPROTO_TCP || number == syscall.IPPROTO_UDP) && len(rest) >= 4 {
		f.Remote = netip.AddrPortFrom(remote, binary.BigEndian.Uint16(rest[port:])).String()
	}
	return f
}

// dropped is how many packets the socket has had no room for (PACKET_STATISTICS of packet(7)).
func dropped(fd int) (uint32, error) {
	const solPacket, packetStatistics = 263, 6
	var stats struct{ packets, drops uint32 }
	size := uint32(unsafe.Sizeof(stats))
	if _, _, errno := syscall.Syscall6(syscall.SYS_GETSOCKOPT, uintptr(fd), solPacket, packetStatistics,
		uintptr(unsafe.Pointer(&stats)), uintptr(unsafe.Pointer(&size)), 0); errno != 0 {
		return 0, errno
	}
	return stats.drops, nil
}

func bigEndian(n uint16) uint16 { return n<<8 | n>>8 }

func main() {
	log.SetFlags(0)
	log.SetPrefix("capture: ")
	fd, err := syscall.Socket(syscall.AF_PACKET, syscall.SOCK_DGRAM, int(bigEndian(syscall.ETH_P_ALL)))
	if err != nil {
		log.Fatal(err)
	}
	const rcvbufForce = 33 // SO_RCVBUFFORCE: beyond what the system allows everybody
	if err := syscall.SetsockoptInt(fd, syscall.SOL_SOCKET, rcvbufForce, 64<<20); err != nil {
		log.Fatal(err)
	}
	loopback, err := net.InterfaceByName("lo")
	if err != nil {
		log.Fatal(err)
	}
	var mu sync.Mutex
	counts := map[flow]*counted{}
	go func() {
		b := make([]byte, 1<<17)
		for {
			n, from, err := syscall.Recvfrom(fd, b, 0)
			if errors.Is(err, syscall.EINTR) || errors.Is(err, syscall.ENETDOWN) { // an interface went down
				continue
			}
			link, ok := from.(*syscall.SockaddrLinklayer)
			if err != nil || !ok {
				log.Fatal("receive: ", err)
			}
			if link.Ifindex == loopback.Index {
				continue
			}
			key := of(bigEndian(link.Protocol), link.Pkttype == syscall.PACKET_OUTGOING, b[:n])
			mu.Lock()
			f := counts[key]
			if f == nil {
				f = &counted{flow: &flow{Out: key.Out, Protocol: key.Protocol, Remote: key.Remote}}
				counts[key] = f
			}
			f.Packets++
			f.Bytes += n
			if to, err := netip.ParseAddrPort(key.Remote); err == nil && key.Out && key.Protocol == "udp" && to.Port() == mdns {
				header := 40 // of IPv6
				if to.Addr().Is4() {
					header = int(b[0]&15) * 4
				}
				f.Said = append(f.Said, bytes.Clone(b[min(header+8, n):n]))
			}
			mu.Unlock()
		}
	}()
	fmt.Println("ready")
	io.Copy(io.Discard, os.Stdin)
	mu.Lock()
	defer mu.Unlock()
	var result struct {
		Flows   []*counted `json:"flows"`
		Dropped uint32     `json:"dropped"` // packets that were not seen
	}
	for _, f := range counts {
		result.Flows = append(result.Flows, f)
	}
	if result.Dropped, err = dropped(fd); err != nil {
		log.Fatal(err)
	}
	json.NewEncoder(os.Stdout).Encode(result)
}
