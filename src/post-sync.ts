import { MessageChannel, receiveMessageOnPort, Worker } from 'node:worker_threads'

/** What a request sends. */
export type PostInit = { readonly headers: { readonly [name: string]: string }, readonly body: string }

/** What the server answered. */
export type PostAnswer = { readonly status: number, readonly body: string }

// Plain JavaScript, as it runs without a file of its own; the same fetch as everywhere.
const program = `
const { workerData: { url, init, port, done } } = require('node:worker_threads')
fetch(url, { method: 'POST', ...init })
  .then(async (response) => port.postMessage({ status: response.status, body: await response.text() }))
  .catch(() => {})
  .finally(() => { Atomics.store(done, 0, 1); Atomics.notify(done, 0) })
`

/**
 * Posts, and waits for the answer without going back to the event loop: for a process that is about to end, where
 * nothing can be awaited any more. A thread posts while this one sleeps.
 *
 * @param milliseconds how long to wait at most
 * @returns undefined where no answer came in time, or none at all; never throws
 */
export function postSync(url: string, init: PostInit, milliseconds: number): PostAnswer | undefined {
  const done = new Int32Array(new SharedArrayBuffer(4))
  const { port1, port2 } = new MessageChannel()
  try {
    const worker = new Worker(program, {
      eval: true,
      // Loaders and hooks of the program are not for this thread: they would only take time.
      execArgv: [],
      workerData: { url, init, port: port2, done },
      transferList: [port2],
    })
    worker.unref()
    worker.on('error', () => {})
    Atomics.wait(done, 0, 0, Math.max(milliseconds, 0))
    const answer = receiveMessageOnPort(port1)?.message as PostAnswer | undefined
    void worker.terminate()
    return answer
  } catch {
    return undefined
  } finally {
    port1.close()
  }
}
