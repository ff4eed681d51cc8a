// Package bytes is the browser's bulk bytes: AES-GCM and SHA-256 by WebCrypto (bulk.Engine), DEFLATE by its compression streams
// (bulk.Compressor), files that a person chose (transfer.Source), and the origin private file system, or memory where that is missing
// (transfer.Storage). It moves them between the browser's objects and Go's memory through web/host-crypto.js, web/host-deflate.js and
// web/host-files.js, and knows no protocol.
// Natively the package is empty.
package bytes
