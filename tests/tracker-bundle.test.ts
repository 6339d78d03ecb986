import { gzipSync } from 'node:zlib'
import { build } from 'esbuild'
import { expect, test } from 'vitest'

async function bundle(contents: string): Promise<{ gzipped: number, files: string[] }> {
  const { outputFiles: [file], metafile } = await build({
    stdin: { contents, resolveDir: import.meta.dirname, loader: 'ts' },
    bundle: true, minify: true, format: 'esm', platform: 'browser', target: 'es2022', write: false, metafile: true,
  })
  // Files that nothing was taken of do not count.
  const files = Object.values(metafile.outputs).flatMap(({ inputs }) => Object.entries(inputs).filter(([, { bytesInOutput }]) => bytesInOutput > 0).map(([path]) => path))
  return { gzipped: gzipSync(file!.contents, { level: 9 }).length, files }
}

test('the tracker is at most 5 kB in a browser\'s bundle, gzipped, without the persistent queue', async () => {
  const { gzipped, files } = await bundle('import { createTracker } from "../src/tracker.ts"; globalThis.createTracker = createTracker')
  expect(gzipped).toBeLessThanOrEqual(5_000)
  expect(files.filter((path) => path.includes('queue') || path.includes('node_modules'))).toEqual([])
})

test('what is not imported is not in the bundle', async () => {
  const error = await bundle('import { TrackingError } from "../src/tracker.ts"; globalThis.E = TrackingError')
  expect(error.files.filter((path) => path.startsWith('src/'))).toEqual(['src/tracking-error.ts'])
  const queue = await bundle('import { browserQueue } from "../src/tracker.ts"; globalThis.q = browserQueue')
  expect(queue.files.filter((path) => path.startsWith('src/')).sort()).toEqual(['src/browser-queue.ts', 'src/persistent-queue.ts', 'src/tracking-error.ts'])
})
