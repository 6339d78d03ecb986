import * as Plot from '@observablehq/plot'
import { useEffect, useRef } from 'preact/hooks'

/** A chart of Observable Plot's, as wide as there is room, and drawn anew when that changes. `label` says what it shows. */
export function Plotted({ label, draw }: { label: string, draw(width: number): Plot.PlotOptions }) {
  const box = useRef<HTMLDivElement>(null)
  useEffect(() => {
    const element = box.current
    if (!element) return
    const paint = () => {
      const width = element.clientWidth
      if (width > 0) element.replaceChildren(withoutStyles(Plot.plot({ ...look, ...draw(width), width })))
    }
    const observer = new ResizeObserver(paint)
    observer.observe(element)
    return () => observer.disconnect()
  }, [draw])
  return <div class="plot" role="img" aria-label={label} ref={box} />
}

const look: Plot.PlotOptions = { className: 'plotted', marginLeft: 44, marginRight: 8, marginBottom: 28, style: { fontSize: '12px', overflow: 'visible' } }

// Plot brings its style sheet along inside the drawing, which a strict content security policy refuses: style.css has it.
function withoutStyles(drawing: Element): Element {
  for (const style of drawing.querySelectorAll('style')) style.remove()
  return drawing
}

/** Ticks of an axis of time, in UTC and as few as fit. */
export const timeAxis = { type: 'utc', label: null, tickSize: 0, tickPadding: 8 } as const

/** Lines across, and numbers beside them. */
export const grid = (options: Plot.AxisYOptions = {}): Plot.Markish[] => [
  Plot.gridY({ stroke: 'var(--line)', strokeOpacity: 1, ...options.ticks ? { ticks: options.ticks } : {} }),
  Plot.axisY({ tickSize: 0, label: null, ticks: 4, ...options }),
]
