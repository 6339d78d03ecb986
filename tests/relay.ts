import { connect, createServer, type AddressInfo, type Socket } from 'node:net'

/** Something between clients and Postgres that passes on what both say, until it is cut. */
export type Relay = {
  readonly url: string
  /** Ends all connections, as a network does: nobody says why. */
  cut(): void
  close(): Promise<void>
}

export async function startRelay(databaseUrl: string): Promise<Relay> {
  const { port, hostname } = new URL(databaseUrl)
  const sockets = new Set<Socket>()
  const listener = createServer((client) => {
    const upstream = connect(Number(port), hostname)
    for (const socket of [client, upstream]) sockets.add(socket.on('error', () => {}))
    client.pipe(upstream).pipe(client)
  })
  await new Promise<void>((done) => listener.listen(0, '127.0.0.1', done))
  const url = new URL(databaseUrl)
  url.port = String((listener.address() as AddressInfo).port)
  const cut = () => {
    for (const socket of sockets) socket.destroy()
    sockets.clear()
  }
  return {
    url: url.href,
    cut,
    async close() {
      cut()
      await new Promise((done) => listener.close(done))
    },
  }
}
