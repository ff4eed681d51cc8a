// The JavaScript API of Tallow (tallow.js). What is here exists; a test compares the two.
//
// Snapshots (everything readonly that is not a class with methods) never change: a newer one comes with the next event.
// Events are dispatched in order, in a later task, never during a call. Wrong arguments are TallowError("invalid-argument"), thrown
// at once, or as a rejection where a promise is returned. Ids are hexadecimal. Sizes are bytes, speeds bytes per second.

/** What went wrong. Codes are stable; branch on them and never on messages. */
export type ErrorCode =
  | "bad-link" // the link is damaged or truncated
  | "link-version" // the link is for another version of Tallow
  | "owner-away" // nobody who can admit answered
  | "room-full" // the room, or the server's share of it, is full
  | "room-locked" // the owner lets nobody new in
  | "join-denied" // the owner said no
  | "removed" // the owner removed this member
  | "replaced" // the same member entered from elsewhere
  | "server-unreachable" // no connection to the signaling server
  | "server-refused" // the signaling server refused
  | "server-full" // the signaling server has no room
  | "rate-limited" // too much in too short a time
  | "unsupported-version" // the other end speaks another protocol version
  | "unsupported-browser" // the browser lacks something that cannot be replaced
  | "insecure-origin" // the page is not served securely, and that is needed here
  | "invalid-argument" // the caller passed something wrong
  | "room-closed" // the room was left or closed
  | "not-owner" // only the owner can do that
  | "unknown-peer" // no such member
  | "unknown-transfer" // no such offer or transfer
  | "no-recipients" // nobody to send to
  | "too-many-recipients" // more than the room allows
  | "too-large" // beyond a stated limit
  | "declined" // the recipient said no
  | "cancelled" // ended by this end
  | "cancelled-by-peer" // ended by the other end
  | "peer-gone" // the other member left or was lost
  | "connection-failed" // no path to the other member
  | "no-relay" // relays only, and the server offers none
  | "address-leak" // relays only, and the browser did not keep to it
  | "handshake-failed" // the other member could not prove who it is
  | "rekey-timeout" // the other member did not answer a key change
  | "file-changed" // a file is not what it was when it was offered
  | "file-unreadable" // a file cannot be read; some browsers say so of changed files too
  | "disk-full" // the recipient has no room; while a delivery runs: it waits for some
  | "storage-failed" // the recipient cannot write or read its storage; what is there is kept for a retry
  | "integrity" // received data is not what was announced
  | "protocol-violation" // the other end broke the protocol
  | "internal"; // a bug in Tallow

/** What to tell a person, by code: what happened and what to do. English. */
export const messages: Readonly<Record<ErrorCode, string>>;

/** Every error of this API. */
export class TallowError extends Error {
  constructor(code: ErrorCode, cause?: unknown, peer?: string);
  readonly name: "TallowError";
  readonly code: ErrorCode;
  /** `messages[code]` */
  readonly message: string;
  /** What lies behind it, for logs: an Error, a string, or undefined. */
  readonly cause: unknown;
  /** In `error` events: the member that it concerns, if any. */
  readonly peer: string | undefined;
}

/**
 * Starts an instance of Tallow. Several on one page are independent of each other. It leaves no globals behind.
 * Rejects with `unsupported-browser` (or `insecure-origin`, if that may be why) where WebAssembly or WebRTC is missing, and with `server-unreachable` when the assets
 * cannot be loaded.
 */
export function load(options?: LoadOptions): Promise<Tallow>;

/** Where the assets are; each defaults to the folder of tallow.js. */
export interface LoadOptions {
  wasmURL?: string | URL;
  /**
   * The storage worker. Browsers start workers of the page's own origin only: a page that imports tallow.js from another
   * origin serves a copy of storage-worker.js itself and names it here. Without it received data is held in memory.
   */
  workerURL?: string | URL;
}

/** A running instance. */
export class Tallow {
  private constructor();
  readonly version: string;
  /** SHA-256 of the WebAssembly that runs, in hexadecimal, computed from the bytes that were loaded; "" where WebCrypto is missing. */
  readonly wasmSHA256: string;
  readonly features: Features;
  /** Makes a room. Resolves once the server has let it in. */
  createRoom(options?: RoomOptions & OwnerOptions): Promise<Room>;
  /**
   * Enters the room of a link (a whole URL, or its fragment). Resolves once the owner has let us in. Rejects with `bad-link`,
   * `link-version`, `owner-away`, `room-full`, `room-locked`, `join-denied`, `removed`, `server-unreachable`,
   * `server-refused`, `server-full`, `rate-limited`, or the reason of the signal.
   *
   * When this browser was in that room before and did not leave it, it enters as the same member, and the owner as the owner: with its
   * OwnerOptions and lock as they were, except those that are given here.
   */
  joinRoom(link: string | URL, options?: RoomOptions & JoinOptions & OwnerOptions): Promise<Room>;
  /** The rooms that this browser was in, did not leave, and has not open now: to be entered again with joinRoom(link). */
  remembered(): Promise<RememberedRoom[]>;
  /** Forgets a remembered room, and with it who we were there. */
  forget(link: string): Promise<void>;
  /**
   * The transfers that earlier pages have begun and that wait for something: for their room to be entered again, for the person to take what has arrived
   * (`done`), or, in a room that this page is in, for their files. What is received, or has arrived, in a room that this page is in is in `room.transfers`.
   * What nobody has gone on with for 7 days is deleted at the next visit, and so is what has arrived and nobody has taken for 7 days.
   */
  unfinished(): Promise<UnfinishedTransfer[]>;
  /** Leaves every room and ends the instance. Safe to call again. */
  close(): Promise<void>;
}

/** A transfer that an earlier page has begun. A snapshot. */
export class UnfinishedTransfer {
  private constructor();
  readonly id: string;
  readonly direction: "incoming" | "outgoing";
  /** Incoming: it has arrived, verified, and the person does not have all of it yet (`ReceivedFile.saved`). Its room need not be entered: received(). */
  readonly done: boolean;
  /** Of its room. */
  readonly link: string;
  /** Whether this page is in that room. */
  readonly entered: boolean;
  /** Of the sender, or of the recipients. */
  readonly names: readonly string[];
  /** Those that are wanted. */
  readonly files: readonly FileInfo[];
  readonly total: number;
  /** About what was transferred; to the recipient that was furthest. */
  readonly bytes: number;
  /** When it was begun or gone on with last, or had arrived, ms since 1970. */
  readonly when: number;
  /** Outgoing: continue() without files does something: the browser has kept access to some (the `handle` of a Sendable), or there are none to read. */
  readonly remembered: boolean;
  /**
   * Outgoing: which files continue() has not been given yet; of these none needs to be given that is empty, and, as far as is known by the last call of it,
   * none that everybody has who is to have it.
   */
  readonly lacking: readonly FileInfo[];
  /**
   * Goes on with it. Outgoing: with the same files, given again, or with those that the browser has kept access to, for which it may ask the person: call it
   * from a click. They are found by path, or by name and size. A file that is not what it was fails with `file-changed`: what had been read is
   * compared, of the rest size and lastModified tell (of a Blob, and of a File made just now, only the size does). A text that is not given again, and was not delivered, fails with `file-unreadable`; folders and empty
   * files need not be given. Rejects with `invalid-argument` while files are lacking: those that were given are kept, and it can be called again with others
   * (`lacking` names them), or, with `without`, goes on without them: they fail with `file-unreadable` then, for all who do not have everything yet. Rejects
   * with `file-unreadable` when the browser has lost access; with `room-closed` when this page is not in its room: enter it first, with joinRoom(link). What
   * is received goes on by itself there. Not for what is `done`.
   */
  continue(items?: Sendable | Iterable<Sendable>, options?: { without?: boolean }): Promise<OutgoingTransfer>;
  /** What is `done`, as IncomingTransfer.finished. Reading it rejects with `unknown-transfer` once another page has entered its room, with `storage-failed` when it is gone. */
  received(): Promise<IncomingResult>;
  /** Saves what is `done`, as IncomingTransfer.saveAll(). */
  saveAll(options?: SaveOptions): Promise<void>;
  /** Deletes it, and what has been received of it. Rejects with `unknown-transfer` when another page has gone on with it. */
  discard(): Promise<void>;
}

/** What this browser has. */
export interface Features {
  /** "wasm" is slower; it serves where the page was not loaded securely. */
  readonly crypto: "webcrypto" | "wasm";
  /** "opfs": on disk, by the origin private file system. "memory": up to `memoryLimit`, lost with the page. */
  readonly storage: "opfs" | "memory";
  /** The most that can be received at a time when storage is "memory"; Infinity otherwise. */
  readonly memoryLimit: number;
}

export interface RoomOptions {
  /** Shown to the others; at most 64 bytes of UTF-8. */
  name?: string;
  /** The signaling endpoint, ws: or wss:; after failures paths below it are used, too. By default `/ws` of the server that tallow.js came from. */
  serverURL?: string | URL;
  /** The page that the link opens. By default this page. */
  pageURL?: string | URL;
  /**
   * Used instead of what the server offers. Room.setIceServers() replaces them. `invalid-argument` for what the browser's connections cannot be given: another
   * scheme than stun, stuns, turn and turns, for example, or a TURN server without a username or a credential.
   */
  iceServers?: RTCIceServer[];
  /**
   * Connect through relays only, so that members do not learn this one's address: no other candidate is gathered, told or taken. The server may
   * demand it as well. Default: as it was when this browser was in the room before (see `remember`), and false otherwise.
   */
  relayOnly?: boolean;
  /** Where a member's quality changes. Default: 100, 200 and 300 ms. */
  qualityThresholds?: QualityThresholds;
  /**
   * "manual": members are met only by connect(), and by values that the caller carries between their rooms: see DataChannelManager. All members of
   * a room should say the same. Default "auto": everybody is connected with everybody.
   */
  connections?: "auto" | "manual";
  /**
   * How often in a row a connection that is in doubt is restarted (ICE) before it is given up, and after how many attempts without one the member
   * is shown as failed: 1 to 20. Attempts go on after that, slowly. Default 4.
   */
  reconnectAttempts?: number;
  /**
   * Whether to keep who we are in this room until we leave it, so that a reload continues it. What no page has used for more than 7 days is deleted
   * the next time that load() runs. Default true.
   */
  remember?: boolean;
  /** Aborts the entering; has no effect on the room afterwards. */
  signal?: AbortSignal;
}

/** Round-trip times in ms (at most 60,000) below which a member's quality is what the name says, each above the one before. */
export interface QualityThresholds {
  excellent: number;
  good: number;
  fair: number;
}

/** For the owner; kept for its coming back. */
export interface OwnerOptions {
  /** How many others may be in the room: 1 to 63. Default 10. The server may allow fewer. */
  maxRecipients?: number;
  /** "auto": whoever holds the link. "approval": `joinrequest` asks. Default "auto". */
  admission?: "auto" | "approval";
}

export interface JoinOptions {
  /** Called, in a later task, when the owner is being asked: joinRoom resolves or rejects with the answer. */
  onpending?: () => void;
}

export interface RememberedRoom {
  /** `pageURL` and fragment. */
  readonly link: string;
  readonly owner: boolean;
  /** Our name there. */
  readonly name: string;
  /** When it was entered first, ms since 1970. */
  readonly entered: number;
}

/**
 * - connecting: entering. - pending: the owner is being asked. - open. - disconnected: links and transfers go on, but the server
 * is away and nobody new comes; it is tried again. - closed: left, removed, or replaced.
 */
export type RoomState = "connecting" | "pending" | "open" | "disconnected" | "closed";

export interface RoomEventMap {
  /** A member appeared, in whatever state. */
  peerjoin: CustomEvent<Peer>;
  /** A member is no longer in the room. */
  peerleave: CustomEvent<Peer>;
  /** Something about a member changed. */
  peerchange: CustomEvent<Peer>;
  /** A member wants to send. */
  offer: CustomEvent<Offer>;
  /** An offer that was not answered is gone; `code` says why. */
  offerwithdrawn: CustomEvent<{ readonly id: string; readonly code: ErrorCode | undefined }>;
  /**
   * A transfer of an earlier page goes on here; or, if it is outgoing, waits for its files (`tallow.unfinished()`); or, if it is over, had arrived and was not
   * handed over: `finished` resolves as it did there.
   */
  transfer: CustomEvent<OutgoingTransfer | IncomingTransfer>;
  statechange: CustomEvent<{ readonly state: RoomState; readonly code: ErrorCode | undefined }>;
  /** Somebody asks to be let in: answer with approve(id) or approve(id, false). */
  joinrequest: CustomEvent<{ readonly id: string; readonly name: string }>;
  /** In a manual room: a value to carry to the peer's room. candidate: it only adds to one before it. */
  signal: CustomEvent<{ readonly peer: string; readonly value: string; readonly candidate: boolean }>;
  /** In a manual room: a value that the peer has sent with relaySignal(). Give it to takeSignal(), if you like. */
  signalarrived: CustomEvent<{ readonly peer: string; readonly value: string; readonly kind: "offer" | "answer" | "candidate" }>;
  /** What belongs to no call and no transfer. */
  error: CustomEvent<TallowError>;
}

export class Room extends EventTarget {
  private constructor();
  /** Whoever holds it can ask to join. */
  readonly link: string;
  readonly self: Self;
  /** The others. */
  readonly peers: readonly Peer[];
  /** The offers that are not answered yet. */
  readonly offers: readonly Offer[];
  /** The transfers of this page, and those of earlier ones that go on, oldest first; ended ones stay. */
  readonly transfers: readonly (OutgoingTransfer | IncomingTransfer)[];
  readonly state: RoomState;
  /** Owner: whether it lets nobody new in. */
  readonly locked: boolean;
  /** Whether this member connects through relays only: its own choice, or the server's demand. A `statechange` tells when that changes. */
  readonly relayOnly: boolean;
  /**
   * Whether what is unfinished when this page ends can be gone on with by a later one. Not where the browser has no private file system or keeps nothing, nor with
   * `remember: false`; nor when it did not let the storage be opened in time: what earlier pages have left there then waits for the next one, and what is
   * offered again meanwhile begins anew.
   */
  readonly resumable: boolean;

  /**
   * Offers files to members. Sizes are taken now: a file that changes later fails with `file-changed`, or with `file-unreadable` where the
   * browser does not tell the two apart, as Chromium does not. Throws `invalid-argument`, `no-recipients` (nobody is "open" or "connecting", and late joiners are not asked for), `unknown-peer`, `too-large`, or `room-closed`.
   */
  send(items: Sendable | Iterable<Sendable>, options?: SendOptions): OutgoingTransfer;
  /** Limits all that is sent from this page to the room, in bytes per second; 0: no limit. Deliveries get equal shares of it. */
  setTotalBandwidthLimit(total: number): Promise<void>;
  /**
   * Replaces the option `iceServers`, with fresh credentials before those expire, for example; none: what the server offers. New connections use them
   * at once, those that there are from their next ICE restart on. Rejects with `invalid-argument` as the option does, `room-closed`, or, where only relays may be used
   * and there is none among them, with `no-relay`; then what was used before stays.
   */
  setIceServers(servers: Iterable<RTCIceServer>): Promise<void>;
  /** Owner: lets nobody new in, or lets them in again. */
  lock(locked?: boolean): Promise<void>;
  /** Owner: answers a `joinrequest`. */
  approve(id: string, admit?: boolean): Promise<void>;
  /**
   * Owner: removes a member and refuses its identity from then on, after a reload too, where the room is remembered. Whoever holds the link can come back
   * under a new identity: lock the room, too.
   */
  remove(id: string): Promise<void>;
  /**
   * Who learns this member's network address, and how: what follows from the configuration, before anybody is connected, and what has happened so far. What is
   * contrary to `relayOnly` is a `leak`, and came as an `error` event with `address-leak` when it was found. Rejects with `room-closed`.
   */
  exposure(): Promise<readonly Exposure[]>;
  /**
   * Makes a connection again that disconnect() has ended. In a manual room it begins one: what is to be carried comes as `signal`. With trickle each
   * candidate is a value of its own; without it an offer or answer waits for its candidates, at most 5 seconds. Rejects with `unknown-peer`, `invalid-argument`,
   * `room-closed`, or, in a manual room, with `rate-limited` for a member that is left alone for some time for what it did.
   */
  connect(peer: string | Peer, options?: { trickle?: boolean }): Promise<void>;
  /**
   * Ends the connection to a member, with a goodbye behind what is queued, and with it the transfers between the two. Both stay in the room; the connection
   * comes back when either side calls connect(). It is no ban: that is remove(). Rejects with `unknown-peer`, `invalid-argument` or `room-closed`.
   */
  disconnect(peer: string | Peer): Promise<void>;
  /**
   * Takes a value that the peer's room has made. Rejects with `handshake-failed` when it does not open or nothing waits for it, with `rate-limited` when it cannot
   * be judged yet and what it waits for (an answer that comes first, some time between two attempts) has not come after about 15 seconds, with
   * `invalid-argument` for what is no such value or in a room that is not manual, with `unknown-peer`, or with `room-closed`.
   */
  takeSignal(peer: string | Peer, value: string, options?: { trickle?: boolean }): Promise<void>;
  /**
   * Sends a value to the peer's room by the signaling server, as `signalarrived`. Rejects with `invalid-argument` for what is no such value or in a room that is
   * not manual, with `unknown-peer`, or with `room-closed`. That it resolves does not say that the value has arrived.
   */
  relaySignal(peer: string | Peer, value: string): Promise<void>;
  /** The figures of all the others, read now. Rejects with `room-closed`. */
  stats(): Promise<readonly PeerStats[]>;
  /** Ends all transfers and leaves. Safe to call again. */
  leave(): Promise<void>;

  addEventListener<K extends keyof RoomEventMap>(type: K, listener: (event: RoomEventMap[K]) => void, options?: boolean | AddEventListenerOptions): void;
  addEventListener(type: string, listener: EventListenerOrEventListenerObject | null, options?: boolean | AddEventListenerOptions): void;
  removeEventListener<K extends keyof RoomEventMap>(type: K, listener: (event: RoomEventMap[K]) => void, options?: boolean | EventListenerOptions): void;
  removeEventListener(type: string, listener: EventListenerOrEventListenerObject | null, options?: boolean | EventListenerOptions): void;
}

/**
 * - signaling: the connection to the server. - stun: a STUN server is asked for our address. - turn: a TURN server relays for us.
 * - plain-relay, plain-server: the way there is without TLS. - direct: connections to members may be direct.
 * - candidate: members were told an address of the type in `detail`; as a leak: the browser came up with it, and it was not told.
 * - route: the connection to the member in `detail` is direct.
 */
export type ExposureKind = "signaling" | "stun" | "turn" | "plain-relay" | "plain-server" | "direct" | "candidate" | "route";
/**
 * server: where this member entered the room. third-party: another server. network: whoever is on the way. nobody: nobody was told, but the browser may
 * have sent packets from there.
 */
export type Audience = "server" | "third-party" | "members" | "network" | "nobody";

/** One way in which somebody learns this member's network address. */
export interface Exposure {
  readonly what: ExposureKind;
  readonly to: Audience;
  /** A URL, the type of a candidate (host, srflx, prflx), or a member's id; may be "". */
  readonly detail: string;
  /** It should not be, since this member connects through relays only. */
  readonly leak: boolean;
}

/** This member. */
export interface Self {
  readonly id: string;
  readonly name: string;
  readonly owner: boolean;
}

/**
 * - connecting. - open. - closing: a goodbye is on its way, behind what was queued. - closed: there is no connection, and none is being made.
 * - failed: attempts have come to nothing; others follow, slowly.
 */
export type PeerState = "connecting" | "open" | "closing" | "closed" | "failed";
/**
 * By round-trip time: below 100, 200, 300 ms (or `qualityThresholds`), and above; loss makes it worse. disconnected: there is no link, or
 * nothing comes over it: noticed within 10 s. It gets better only at a distance from the threshold, so that it does not flap.
 */
export type Quality = "excellent" | "good" | "fair" | "poor" | "disconnected";

/** A snapshot of another member. */
export class Peer {
  private constructor();
  readonly id: string;
  readonly name: string;
  readonly owner: boolean;
  readonly state: PeerState;
  /** "disconnected" also while nothing gets through an open connection: the browser says so, or it has been silent for 8 seconds. */
  readonly quality: Quality;
  /** Round-trip time in ms, smoothed, without the queues of our own transfers; 0: unknown. */
  readonly rtt: number;
  /** How the data travels; "" until connected. */
  readonly route: "" | "direct" | "relay";
  /** What the route runs over; of a relayed one, to this end's relay. "" until connected. */
  readonly protocol: "" | "udp" | "tcp" | "tls";
  /** Four words, once open; empty before. Both sides see the same unless somebody sits between them. */
  readonly safetyWords: readonly string[];
  /** The person has compared the words. It sticks to that member's keys. */
  readonly verified: boolean;
  /** Why it failed. */
  readonly code: ErrorCode | undefined;
  markVerified(verified?: boolean): Promise<void>;
  /** This member's figures, read now. Rejects with `unknown-peer` when it is in the room no longer, or with `room-closed`. */
  stats(): Promise<PeerStats>;
}

/**
 * A member's figures. Counts are over all connections to it since it appeared in the room, those on the wire without what went in the last two seconds
 * or so of a connection that has ended; rates are bytes per second.
 */
export interface PeerStats {
  /** The member's id. */
  readonly peer: string;
  readonly state: PeerState;
  readonly quality: Quality;
  /** Round-trip time in ms, smoothed, as `Peer.rtt`; 0: unknown. */
  readonly rtt: number;
  /** Of the last ping alone, in ms; in the queue behind our own transfers it can be far more. 0: unknown. */
  readonly currentRTT: number;
  /**
   * Share, 0 to 1, of the last minute's connectivity checks that got no answer. There is one every two or three seconds, so it is coarse;
   * what the data channels send again is not visible. -1: unknown, as always in Firefox.
   */
  readonly loss: number;
  /** As `Peer.route`. */
  readonly route: "" | "direct" | "relay";
  /** Through a relay of ours, how it is reached; "" until known. */
  readonly protocol: "" | "udp" | "tcp" | "tls";
  /** Seconds that the present connection has been open; 0: there is none. */
  readonly uptime: number;
  /** Connections after the first, and times that one went on after its path had seemed lost from here. */
  readonly reconnects: number;
  /** On the wire, with what encryption and transport add. Chromium counts them anew only 50 ms after it has last been asked. */
  readonly bytesSent: number;
  readonly bytesReceived: number;
  /** -1: the browser does not count them, as Firefox. */
  readonly packetsSent: number;
  readonly packetsReceived: number;
  /** Over about the last two seconds. */
  readonly sendRate: number;
  readonly receiveRate: number;
  /** Over all the time with a connection. */
  readonly meanSendRate: number;
  readonly meanReceiveRate: number;
  /** Bytes of files handed to the connection, what was sent again included. */
  readonly payloadSent: number;
  /** Bytes of files verified and on disk. */
  readonly payloadReceived: number;
  readonly chunksSent: number;
  /** Of these, those that had been sent before over a connection that was lost. */
  readonly chunksResent: number;
  /** Received, verified and on disk. */
  readonly chunksVerified: number;
}

/**
 * What can be sent. A string is a text message (at most 1 MiB). `path` is relative, with "/" (folders travel as the paths of their files; an empty
 * one, or one that is to be there in any case, as a `directory`). A Blob without a path is sent as "data". With a `handle`, for a file that was
 * dropped or picked where the browser gives one, a later page can read it again; with the `folder`, too, in which it was dropped or picked, the
 * person is asked once for all that is in there.
 */
export type Sendable = File | Blob | string | { path: string; file: File | Blob; handle?: FileSystemFileHandle; folder?: FileSystemDirectoryHandle } | { path: string; directory: true };

export interface SendOptions {
  /** Who is to get it. Default: every member whose state is "open" or "connecting". Who is not "open" gets 30 seconds to become so. */
  to?: Iterable<string | Peer>;
  /** Bytes per second to each recipient; 0, the default: no limit. */
  bandwidthLimitPerRecipient?: number;
  /** Bytes per second to all recipients together; 0, the default: no limit. They get equal shares, and what one cannot use goes to the others. */
  bandwidthLimit?: number;
  /**
   * Whoever is admitted later is offered it too, while this page is open, until stopOffering() or cancel(): nobody need be there yet. With `to`, those who are
   * there and not named are not offered it later either; an empty list is for later ones only. A transfer has at most 64 recipients in all. Default false.
   */
  lateJoiners?: boolean;
  /** Contents are compressed where trying shows that it saves time; false: never. Default: true. */
  compression?: boolean;
  /** Cancels the transfer. */
  signal?: AbortSignal;
}

/** One file of an offer or a transfer. Names come from a stranger: safe as file names, but show them as text only. */
export interface FileInfo {
  readonly index: number;
  readonly kind: "file" | "text" | "directory";
  /** The last element of `path`. */
  readonly name: string;
  readonly path: string;
  readonly size: number;
  /** Media type; may be empty. */
  readonly type: string;
  /** ms since 1970; 0: unknown. */
  readonly lastModified: number;
  /** Incoming: how much is on disk. */
  readonly stored: number;
  /** Incoming: verified, on disk. */
  readonly complete: boolean;
  /** The end-to-end hash (PROTOCOL.md section 10; not what sha256sum prints); "" until known. */
  readonly root: string;
  /** Why it failed. */
  readonly code: ErrorCode | undefined;
}

/** Files that another member wants to send. */
export class Offer {
  private constructor();
  /** Of the transfer. */
  readonly id: string;
  /** The sender, as it was when it offered. */
  readonly from: Peer;
  /** To how many members it is offered, this one included. */
  readonly recipients: number;
  readonly files: readonly FileInfo[];
  readonly totalSize: number;
  /**
   * Throws `invalid-argument` when it was answered already, `unknown-transfer` when it is gone. A transfer that fails before it begins, with
   * `disk-full` say where files are kept in memory and it can never hold so much, leaves the offer open: it is in `room.offers` again, unless it has been
   * withdrawn. A disk without room fails nothing: the delivery is `paused` with the code `disk-full`, and goes on when there is some.
   */
  accept(options?: AcceptOptions): IncomingTransfer;
  /** `reason` is shown to the sender; at most 200 bytes of UTF-8. */
  decline(reason?: string): Promise<void>;
}

export interface AcceptOptions {
  /** Which ones, by index. Default: all. */
  files?: Iterable<number | FileInfo>;
  /**
   * A folder that the person has picked, open for writing: what arrives is put into it too, as by `saveAll({ directory })`, before `finished` resolves.
   * When that fails `finished` rejects with `disk-full` or `storage-failed`, or with `cancelled` when the signal ends it, and what has arrived can still be saved.
   */
  directory?: FileSystemDirectoryHandle;
  /**
   * It is written into `directory` while it arrives, and nowhere else: for what the private file system has no room for. Of each file an empty one stands
   * there until it is whole, and the sender gets its receipt once all files are. It cannot be gone on with after this page: a reload or a crash ends it, and leaves in the folder the
   * files that were whole, and empty ones for those that were not. When it is cancelled or fails as a whole, all that it has made there is
   * removed, but for `peer-gone`: then it waits for its sender, until discard(). When files failed, what has arrived of the others stays. A folder without room does not pause it: it fails with `disk-full`. What has arrived is `saved`; ReceivedFile.file() reads it in the folder, and
   * discard() leaves it there. Default false.
   */
  directly?: boolean;
  /** Cancels the transfer. */
  signal?: AbortSignal;
}

/** How IncomingTransfer.saveAll() saves. */
export interface SaveOptions {
  /**
   * "files", the default: each as ReceivedFile.save() does, without folders. "zip": one download with the folders and times of modification, which takes
   * no memory: it is made of what lies on disk, after it has been read once for the checksums.
   */
  as?: "files" | "zip";
  /**
   * Instead: a folder that the person has picked, open for writing. What is there already is never overwritten: a file whose name is taken gets a number. Browsers
   * give the files the time of writing.
   */
  directory?: FileSystemDirectoryHandle;
  /** Which ones. Default: all that have arrived. */
  files?: Iterable<ReceivedFile>;
  /** Of the zip. Default: that of the folder in which all lie, or "files.zip". */
  name?: string;
  /** Stops it. */
  signal?: AbortSignal;
}

/**
 * - offered: waiting for the answer. - transferring, paused (by either side, or for want of room on the recipient's disk: `code`). - interrupted: the link is lost; goes on when it is back.
 * - verifying: everything has arrived; the whole is being checked. - saving: being made durable, and, at a recipient with `AcceptOptions.directory`, put there, or closed there. - done: verified on the recipient's disk, or `inMemory`.
 * - declined, cancelled, failed.
 */
export type DeliveryState =
  | "offered" | "transferring" | "paused" | "interrupted" | "verifying" | "saving"
  | "done" | "declined" | "cancelled" | "failed";

/** Whether a delivery or a transfer in that state is over: done, declined, cancelled or failed. */
export function isOver(state: DeliveryState): boolean;

/** A transfer to or from one member. */
export interface Delivery {
  /** The other member's id and name. */
  readonly peer: string;
  readonly name: string;
  readonly state: DeliveryState;
  /** What the recipient wants. */
  readonly total: number;
  /** Of that, on the recipient's disk. */
  readonly bytes: number;
  /** 0 to 100. */
  readonly percent: number;
  readonly speed: number;
  /** Seconds; -1: unknown. */
  readonly eta: number;
  readonly quality: Quality;
  /** Incoming: bytes that came again although they were on the disk already, which no lost connection should bring about. */
  readonly repeated: number;
  /**
   * What has been delivered is only in the memory of the recipient's page (`Features.storage`), and lost with that unless it is saved. Outgoing: the recipient has
   * signed that, and tells nothing of saving.
   */
  readonly inMemory: boolean;
  /** Why it failed. While it runs: `disk-full`, when it waits for room on the recipient's disk; resume() at the recipient tries again at once. */
  readonly code: ErrorCode | undefined;
  /** The recipient's own words when it declined, or "". Show it as text only. */
  readonly reason: string;
}

/** Sums over the deliveries, and the deliveries. */
export interface TransferStats {
  readonly state: DeliveryState;
  readonly total: number;
  readonly bytes: number;
  readonly percent: number;
  readonly speed: number;
  /** Of the slowest; -1: unknown. */
  readonly eta: number;
  /** Outgoing: one per recipient. Incoming: one, from the sender. */
  readonly recipients: readonly Delivery[];
}

export interface TransferEventMap {
  /** At most about ten a second, and once at the end. */
  progress: CustomEvent<TransferStats>;
}

/** What both kinds of transfer share. */
export abstract class Transfer<Result = OutgoingResult | IncomingResult> extends EventTarget {
  protected constructor();
  readonly files: readonly FileInfo[];
  /**
   * That of the recipient; with several, of those that are still running the furthest (in the order transferring, verifying, saving,
   * interrupted, paused, offered), and at the end the best (done, declined, cancelled, failed). "offered" while late joiners are waited for.
   */
  readonly state: DeliveryState;
  /**
   * Resolves or rejects once, when it is over: see OutgoingResult and IncomingResult. A retry of a transfer that is over makes a new one, and so does the
   * other end coming back after a `peer-gone`, or a new connection after a `storage-failed`: it then goes on by itself. Nobody
   * needs to wait for it: a rejection that nobody observes is no unhandledrejection.
   */
  readonly finished: Promise<Result>;
  /**
   * Whether pause() holds it, whatever the deliveries are: the other end may have paused them as well, or not have answered yet. A `progress` event tells
   * of it.
   */
  readonly paused: boolean;
  /** pause, resume and cancel do nothing once it is over. */
  pause(): Promise<void>;
  resume(): Promise<void>;
  stats(): TransferStats;

  addEventListener<K extends keyof TransferEventMap>(type: K, listener: (event: TransferEventMap[K]) => void, options?: boolean | AddEventListenerOptions): void;
  addEventListener(type: string, listener: EventListenerOrEventListenerObject | null, options?: boolean | AddEventListenerOptions): void;
  removeEventListener<K extends keyof TransferEventMap>(type: K, listener: (event: TransferEventMap[K]) => void, options?: boolean | EventListenerOptions): void;
  removeEventListener(type: string, listener: EventListenerOrEventListenerObject | null, options?: boolean | EventListenerOptions): void;
}

export class OutgoingTransfer extends Transfer<OutgoingResult> {
  private constructor();
  /** "" until the offer is on its way, a moment after send(). */
  readonly id: string;
  readonly recipients: readonly Delivery[];
  /** Whether whoever is admitted later is offered it. Until that is over, `finished` does not resolve. */
  readonly lateJoiners: boolean;
  /** Whether the browser could not store what another page would need to go on with it: then it ends with this one. A `progress` event tells of it. */
  readonly notKept: boolean;
  /** Offers it to nobody who is admitted from now on. What has begun goes on, and when it has ended (at once, if there is nothing) `finished` resolves. */
  stopOffering(): Promise<void>;
  /**
   * How it stands, or has ended, per recipient and file, with all it takes to check the receipts without Tallow: save it as JSON. How it ended can be asked for
   * after the room is closed, too.
   */
  ledger(): Promise<Ledger>;
  /** Cancels for one recipient, or for all. With late joiners, for all ends the offering as well. */
  cancel(peer?: string | Peer): Promise<void>;
  /**
   * Offers it again to a recipient for whom it failed, was declined or was cancelled; does nothing for others. For one who has left the room it
   * fails again at once.
   */
  retry(peer: string | Peer): Promise<void>;
  /** Limits each recipient from now on, in bytes per second; 0: no limit. After the end it holds for those that retry() asks again. */
  setBandwidthLimit(perRecipient: number): Promise<void>;
  /** Limits all recipients together from now on, in bytes per second; 0: no limit. After the end it holds for those that retry() asks again. */
  setTotalBandwidthLimit(total: number): Promise<void>;
}

export class IncomingTransfer extends Transfer<IncomingResult> {
  private constructor();
  /** That of the offer. */
  readonly id: string;
  /** The sender, as it was when it offered. */
  readonly from: Peer;
  cancel(): Promise<void>;
  /**
   * Once it is over: saves what has arrived, as single downloads, as one zip, or into a folder. Rejects with `invalid-argument` when nothing has, with
   * `disk-full` or `storage-failed` when it cannot be saved, and with the signal's reason.
   */
  saveAll(options?: SaveOptions): Promise<void>;
  /** Whether all that arrived was handed over (`ReceivedFile.saved`). Until then it outlives the page, for 7 days. */
  readonly saved: boolean;
  /** Whether what has arrived is still kept here: until discard(), or an hour after all of it was handed over, which each save or mark after that begins anew. A `progress` event tells when it is no longer. */
  readonly available: boolean;
  /** Once it is over: deletes the received copy. File objects got from it, and downloads still being written, break. */
  discard(): Promise<void>;
}

/**
 * How a send ended. It resolves however few succeeded; it rejects only when the offer could not be made at all (with `file-changed` when
 * a file had gone already, say), or with `room-closed` when the room closed under it.
 */
export interface OutgoingResult {
  readonly totalRecipients: number;
  readonly successfulRecipients: readonly RecipientOutcome[];
  /** A decline counts as failed, with the code `declined`. */
  readonly failedRecipients: readonly RecipientOutcome[];
  readonly files: readonly FileInfo[];
  /** One entry per recipient: what ledger() gives besides is only needed to check a receipt elsewhere. */
  readonly ledger: readonly LedgerEntry[];
}

/** A transfer's ledger (PROTOCOL.md section 12). Byte strings are base64, times ms since 1970. */
export interface Ledger {
  readonly format: "tallow-ledger-1";
  /** When. */
  readonly made: number;
  /** Of the transfer: 16 bytes, in hexadecimal. */
  readonly id: string;
  readonly sender: LedgerMember;
  readonly chunkSize: number;
  /** As it travelled; the receipts cover its hash. */
  readonly manifest: string;
  readonly files: readonly FileInfo[];
  /** Whether nothing more happens, unless a delivery is tried again. */
  readonly finished: boolean;
  /** One per recipient; ahead of it one for each attempt before a retry() that the recipient has signed a receipt for. */
  readonly entries: readonly LedgerEntry[];
}

export interface LedgerMember {
  readonly id: string;
  readonly name: string;
  /** Public keys. */
  readonly keys: string;
}

export interface RecipientOutcome {
  readonly id: string;
  readonly name: string;
  readonly code: ErrorCode | undefined;
  readonly reason: string;
  /** As in its LedgerEntry. */
  readonly inMemory: boolean;
}

/** How the delivery to one recipient stands, or has ended. */
export interface LedgerEntry {
  readonly peer: string;
  readonly name: string;
  /** The recipient's public keys; "" if there never was a connection to it. */
  readonly keys: string;
  /** What the transfer is called between the two: a retry has an id of its own. */
  readonly transfer: string;
  readonly state: DeliveryState;
  readonly code: ErrorCode | undefined;
  readonly reason: string;
  readonly bytes: number;
  /** When it was offered first, and when it ended, ms since 1970; 0: not yet. */
  readonly offered: number;
  readonly ended: number;
  readonly files: readonly LedgerFile[];
  /** Whether the recipient has signed that what is verified is only in the memory of its page, not on disk; false without a receipt. */
  readonly inMemory: boolean;
  /** Of the delivery, in hexadecimal; "" without a receipt. */
  readonly root: string;
  /** What the recipient has signed, and the signature; "" without a receipt. */
  readonly signed: string;
  readonly signature: string;
}

export interface LedgerFile {
  readonly index: number;
  readonly path: string;
  readonly outcome: "verified" | "not-wanted" | "failed" | "pending";
  readonly code: ErrorCode | undefined;
}

/**
 * How a receive ended. It rejects with a TallowError when nothing of it arrived. Part of it is no success: look at `failed`; the
 * transfer's `state` is "failed" then.
 */
export interface IncomingResult {
  /** Those that arrived, verified. */
  readonly files: readonly ReceivedFile[];
  /** Those that were wanted and did not; `code` says why. */
  readonly failed: readonly FileInfo[];
}

/** A received file. It lies in the browser's own storage until save(), discard() or a later cleaning up. */
export class ReceivedFile {
  private constructor();
  readonly index: number;
  readonly kind: "file" | "text" | "directory";
  readonly name: string;
  readonly path: string;
  readonly size: number;
  readonly type: string;
  readonly lastModified: number;
  readonly root: string;
  /** The bytes, on disk where the browser has the means (`Features.storage`). Rejects for a directory. */
  file(): Promise<File>;
  /**
   * Hands it to the browser's downloads, under its name (a text as .txt). Resolves when handed over. Rejects for a directory. Each waits its
   * turn, about eight a second, since browsers drop what a page begins faster.
   */
  save(): Promise<void>;
  /** Whether the person has it, as far as Tallow knows: it was handed to the browser's downloads or put into a folder, or markSaved() said so. */
  readonly saved: boolean;
  /**
   * Says that the person has it. When all of a transfer is, no later page comes back to it, and the copy here is deleted an hour later; said again, an hour after that.
   */
  markSaved(): Promise<void>;
  /** The text of a text. Rejects for anything else. */
  text(): Promise<string>;
}

// Facades: the classes that older code knows, over a Room. What they do, the Room does.

export interface DataChannelManagerOptions {
  room: Room;
  /** With it, each candidate is a value of its own, for the other side's addIceCandidate(). Without it they are in the other values. */
  onIceCandidate?: (peerId: string, value: string) => void;
  onConnectionStateChange?: (peerId: string, state: PeerState) => void;
}

/**
 * Connections to members. In a room with `connections: "manual"` they are made of values that the caller carries between two pages, each sealed
 * for the other: the first from createConnection(), given to acceptConnection() on the other side; each answer to completeConnection() on the side that it is for, until
 * that resolves to undefined: the connection is open. There are three or four values, depending on whose id is lower; where both pages
 * begin, each carries what comes of its own value: five in all. Each call that waits gets one value, in the order of the calls. A person has ten minutes, but the last value should follow at once: the browser that made it is knocking already, and gives up after about 15 seconds.
 *
 * They reject with the `code` of what went wrong: `handshake-failed`, `connection-failed`, `peer-gone`, `rate-limited` (too soon after another attempt), …
 */
export class DataChannelManager {
  constructor(options: DataChannelManagerOptions);
  /** Resolves to the first value; to undefined once it is open, in a room that carries its signaling itself. */
  createConnection(peer: string | Peer): Promise<string | undefined>;
  acceptConnection(peer: string | Peer, value: string): Promise<string | undefined>;
  completeConnection(peer: string | Peer, value: string): Promise<string | undefined>;
  addIceCandidate(peer: string | Peer, value: string): Promise<void>;
  /** Room.disconnect(), and resolves when it is closed, or the room is. */
  disconnectPeer(peer: string | Peer): Promise<void>;
  getConnectedPeers(): readonly Peer[];
  getStats(peer: string | Peer): Promise<PeerStats>;
  /** Disconnects all, and calls back no more. */
  destroy(): Promise<void>;
}

export interface GroupTransferManagerOptions {
  room: Room;
  bandwidthLimitPerRecipient?: number;
  /** progress in percent, speed in bytes per second. */
  onRecipientProgress?: (peerId: string, progress: number, speed: number) => void;
  onComplete?: (results: OutgoingResult) => void;
}

/** One transfer at a time to a group of members. */
export class GroupTransferManager {
  constructor(options: GroupTransferManagerOptions);
  /** Says what goes to whom; by default to everybody who is connected. Sends nothing yet. */
  initializeGroupTransfer(items: Sendable | Iterable<Sendable>, recipients?: Iterable<string | Peer>): void;
  /** Waits until each recipient has shaken hands, which gives each pair keys of its own, or cannot. */
  startKeyExchange(): Promise<{ readonly ready: readonly string[]; readonly failed: readonly { readonly id: string; readonly code: ErrorCode }[] }>;
  /** Room.send(); resolves as `finished` of the transfer does. */
  sendToAll(): Promise<OutgoingResult>;
  /** The transfer's id; "" until it has been offered. */
  getGroupId(): string;
  getDataChannelManager(): DataChannelManager;
  getConnectedPeerCount(): number;
  getPeerQuality(peer: string | Peer): Quality;
  /** Cancels what is running, and calls back no more. The room stays. */
  destroy(): Promise<void>;
}

export interface GroupInvite {
  /** Of the transfer: for joinGroupTransfer() and leaveGroupTransfer(). */
  readonly groupId: string;
  readonly from: Peer;
  readonly recipientCount: number;
  readonly files: readonly FileInfo[];
  readonly totalSize: number;
}

export interface SignalingClientOptions {
  room: Room;
  onGroupInvite?: (invite: GroupInvite) => void;
  /** To its sender: a recipient has accepted. To a recipient: it has begun. */
  onGroupJoined?: (groupId: string, peerId: string) => void;
  /** A recipient has declined, failed or gone; or the sender has withdrawn it. */
  onGroupLeft?: (groupId: string, peerId: string, code: ErrorCode | undefined) => void;
  /** What the peer has sent with sendGroupOffer and so on, for DataChannelManager's acceptConnection(), completeConnection() and addIceCandidate(). */
  onGroupOffer?: (peerId: string, value: string) => void;
  onGroupAnswer?: (peerId: string, value: string) => void;
  onGroupIceCandidate?: (peerId: string, value: string) => void;
}

/** Invitations to transfers, and the server as a carrier of DataChannelManager's values. */
export class SignalingClient {
  constructor(options: SignalingClientOptions);
  createGroupTransfer(items: Sendable | Iterable<Sendable>, options?: SendOptions): OutgoingTransfer;
  joinGroupTransfer(groupId: string, options?: AcceptOptions): IncomingTransfer;
  /** Declines an invitation, or cancels the transfer. */
  leaveGroupTransfer(groupId: string, reason?: string): Promise<void>;
  /** All three send a value to the peer; which of the callbacks it arrives in is the other side's to see. */
  sendGroupOffer(peer: string | Peer, value: string): Promise<void>;
  sendGroupAnswer(peer: string | Peer, value: string): Promise<void>;
  sendGroupIceCandidate(peer: string | Peer, value: string): Promise<void>;
  /** Calls back no more. */
  destroy(): void;
}
