// How the usage chart is drawn.
